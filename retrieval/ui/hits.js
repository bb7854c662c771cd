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
// Every step of the visit is one of the browser's history, so that its own way back is the trail's. The way forward, and
// back to what the page was before it was loaded anew, is by the link.
const load = performance.timeOrigin, stepShown = () => +element.querySelector(".tools").dataset.step;
history.replaceState({...history.state, load, step: 0}, "");
watch("value", () => {
  // Parameters of the page itself, which theme for one, stay; those of the search before go.
  const kept = new URLSearchParams(location.search), step = stepShown(), held = history.state.step;
  for (const name of ["id", "unlike", "k", "where"]) kept.delete(name);
  for (const [name, value] of new URLSearchParams(element.querySelector(".tools").dataset.link)) kept.append(name, value);
  const state = {...history.state, load, step}, address = kept.size ? `?${kept}` : location.pathname;
  if (step < held) history.go(step - held);
  else if (step > held) history.pushState(state, "", address);
  else history.replaceState(state, "", address);
});
addEventListener("popstate", ({state}) => {
  if (state?.step === undefined) return; // a place in the page
  if (state.load !== load || state.step > stepShown()) location.reload();
  else if (state.step < stepShown()) send({do: "back", step: String(state.step)});
});
