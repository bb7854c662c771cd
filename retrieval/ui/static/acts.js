// A click on a button with data-do sends all of its data.
const send = (data) => window.lookalike.act(data);
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button && !button.disabled) send({...button.dataset});
});
