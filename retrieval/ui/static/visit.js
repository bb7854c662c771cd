// The actions of a visitor, one at a time: those that come before the last answer wait in line. Each is an event "act",
// whatever part of the page it comes from, and starts when the one before is answered.
const line = [], PATIENCE = 30000;
let current = null, since = 0;
const next = () => {
  current = line.shift() ?? null;
  since = performance.now();
  if (!current) return;
  document.body.dataset.did = current.data.do;
  trigger("act", current.data);
};
// A control that keeps moving is sent once, with its latest value.
const LAST = ["filter", "settings", "conditions", "group"];
window.lookalike = {
  act: (data, after = () => {}) => {
    if (LAST.includes(data.do) && line.some((each) => each.data.do === data.do)) return;
    line.push({data, after});
    // What was sent while the server was away is never answered.
    if (!current || performance.now() - since > PATIENCE) next();
  },
  done: () => {
    current?.after();
    next();
  },
};

// Every step of the visit is an entry of the browser's history, so its back and forward buttons move through the visit; to
// a step from before a reload they go by its link. `steps` holds the step of each entry so far.
const load = performance.timeOrigin, NAMES = ["id", "unlike", "k", "where", "filter", "group"];
const tools = () => element.querySelector(".tools"), linked = () => new URLSearchParams(tools().dataset.link);
let steps = [0], at = 0, leaving = 0;
const address = () => {
  // Parameters of the page itself, such as its theme, stay; those of the previous search go.
  const kept = new URLSearchParams(location.search);
  for (const name of NAMES) kept.delete(name);
  for (const [name, value] of linked()) kept.append(name, value);
  return kept.size ? `?${kept}` : location.pathname;
};
const record = () => {
  if (leaving) return;
  const step = +tools().dataset.step, before = at;
  if (step > steps[at]) {
    steps = [...steps.slice(0, ++at), step];
    return history.pushState({...history.state, load, at}, "", address());
  }
  while (at > 0 && steps[at] > step) at--;
  if (at < before) history.go(at - before); // whose popstate event does the rest
  else history.replaceState({...history.state, load, at}, "", address());
};
history.replaceState({...history.state, load, at}, "");
watch("value", record);
addEventListener("popstate", ({state}) => {
  if (state?.at === undefined) return; // a place in the page
  if (state.at === at) return record();
  if (state.load !== load) return location.reload();
  at = state.at;
  leaving++;
  window.lookalike.act({do: "back", step: String(steps[at])}, () => {
    leaving--;
    record();
  });
});
