// Downloads of what is shown, and the link that brings it back.
const save = async (kind) => {
  const hits = [...document.querySelectorAll("#hits .hit")].map(({dataset}) => [+dataset.row, +dataset.score, dataset.chance ? +dataset.chance : null]);
  keep(await server.save({kind, hits}));
};
element.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-save], [data-copy]");
  if (!button || button.disabled) return;
  if (button.dataset.save) return save(button.dataset.save);
  const said = button.textContent;
  await navigator.clipboard.writeText(location.href);
  button.textContent = button.dataset.done;
  setTimeout(() => (button.textContent = said), 1500);
});
watch("value", () => {
  // Parameters of the page itself, which theme for one, stay; those of the search before go.
  const kept = new URLSearchParams(location.search);
  for (const name of ["id", "unlike", "k", "where"]) kept.delete(name);
  for (const [name, value] of new URLSearchParams(element.querySelector(".tools")?.dataset.link)) kept.append(name, value);
  history.replaceState(history.state, "", kept.size ? `?${kept}` : location.pathname);
});
