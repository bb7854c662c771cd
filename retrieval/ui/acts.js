// Every button with data-do tells the server what was pressed: an event "act" with all of its data.
const send = (data) => {
  document.body.dataset.did = data.do;
  trigger("act", data);
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button && !button.disabled) send({...button.dataset});
});
