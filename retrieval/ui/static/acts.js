// Every button with data-do asks for what is pressed, with all of its data.
const send = (data) => window.lookalike.act(data);
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button && !button.disabled) send({...button.dataset});
});
