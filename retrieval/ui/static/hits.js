// Downloads of the results, and the link that restores the search.
const save = async (kind) => {
  const hits = [...document.querySelectorAll("#hits .hit")].map(({dataset}) => [+dataset.row, +dataset.score, dataset.chance ? +dataset.chance : null]);
  keep(await server.save({kind, hits, of: document.querySelector("#hits [data-of]")?.dataset.of}));
};
const copy = async (words) => {
  try {
    return await navigator.clipboard.writeText(words);
  } catch {
    // There is no clipboard over plain HTTP from another machine, nor in the frame of a page that does not allow it.
  }
  const box = Object.assign(document.createElement("textarea"), {value: words});
  element.appendChild(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  if (!done) prompt("", words);
};
element.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-save], [data-copy]");
  if (!button || button.disabled) return;
  if (button.dataset.save) return save(button.dataset.save);
  const said = button.textContent;
  await copy(`${location.origin}${location.pathname}?${linked()}`);
  button.textContent = button.dataset.done;
  setTimeout(() => (button.textContent = said), 1500);
});
