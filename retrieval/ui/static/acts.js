// A click on a button with data-do sends all of its data, and the artifact that its row belongs to.
const send = (data) => window.lookalike.act(data);
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button && !button.disabled) send({of: button.closest("[data-of]")?.dataset.of, ...button.dataset});
});
