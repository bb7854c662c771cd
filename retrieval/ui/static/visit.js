// What a visitor does, one after the other: what comes while an answer is awaited waits in line. Each is an event "act",
// whatever part of the page it comes from, and begins with the answer to the one before.
const line = [], PATIENCE = 30000;
let current = null, since = 0;
const next = () => {
  current = line.shift() ?? null;
  since = performance.now();
  if (!current) return;
  document.body.dataset.did = current.data.do;
  trigger("act", current.data);
};
// A control that is moved on and on is asked for once, as it stands then.
const LAST = ["filter", "settings"];
window.lookalike = {
  act: (data, after = () => {}) => {
    if (LAST.includes(data.do) && line.some((each) => each.data.do === data.do)) return;
    line.push({data, after});
    // Of what was asked while the server was away, no end is told.
    if (!current || performance.now() - since > PATIENCE) next();
  },
  done: () => {
    current?.after();
    next();
  },
};

// Every step of the visit is an entry of the browser's history, so that its own ways back and forth are those of the visit;
// to what the page was before it was loaded anew, the way is the link. `steps` are those of the entries so far.
const load = performance.timeOrigin, NAMES = ["id", "unlike", "k", "where"];
const tools = () => element.querySelector(".tools"), linked = () => new URLSearchParams(tools().dataset.link);
let steps = [0], at = 0, leaving = 0;
const address = () => {
  // Parameters of the page itself, which theme for one, stay; those of the search before go.
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
  if (at < before) history.go(at - before); // and when it is there, what follows
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
