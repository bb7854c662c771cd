// A part of a picture: dragged with a pointer, or chosen with the keys. Shares of width and height, from 0 to 1.
const LEAST = 0.05;
const within = (value) => Math.min(1, Math.max(0, value));
const boxOf = (frame) => frame.querySelector(".region") ?? frame.appendChild(Object.assign(document.createElement("span"), {className: "region"}));
const place = (frame, [left, top, right, bottom]) => Object.assign(boxOf(frame).style, {
  left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
});
const read = (frame) => {
  const {left, top, width, height} = boxOf(frame).style;
  const [l, t, w, h] = [left, top, width, height].map((share) => parseFloat(share) / 100 || 0);
  return [l, t, within(l + w), within(t + h)];
};
const choose = (frame, region) => send({...frame.dataset, do: "region", region});
const at = (frame, event) => {
  const {left, top, width, height} = frame.getBoundingClientRect();
  return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
};

let drag = null;
element.addEventListener("pointerdown", (event) => {
  const frame = event.target.closest(".frame");
  if (!frame || event.button) return;
  drag = {frame, start: at(frame, event), before: frame.querySelector(".region")?.getAttribute("style")};
  frame.setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [x, y] = at(drag.frame, event), [startX, startY] = drag.start;
  place(drag.frame, [Math.min(x, startX), Math.min(y, startY), Math.max(x, startX), Math.max(y, startY)]);
});
const end = (event) => {
  if (!drag) return;
  const {frame, before} = drag, [left, top, right, bottom] = frame.querySelector(".region") ? read(frame) : [0, 0, 0, 0];
  drag = null;
  if (event.type === "pointerup" && right - left >= LEAST && bottom - top >= LEAST) return choose(frame, [left, top, right, bottom]);
  // A tap or a scroll: the earlier selection stays.
  if (before) boxOf(frame).setAttribute("style", before);
  else frame.querySelector(".region")?.remove();
};
element.addEventListener("pointerup", end);
element.addEventListener("pointercancel", end);

const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
element.addEventListener("keydown", (event) => {
  const frame = event.target.closest(".frame");
  if (!frame || event.target !== frame) return;
  const chosen = frame.querySelector(".region");
  if (event.key in STEPS) {
    event.preventDefault();
    let [left, top, right, bottom] = chosen ? read(frame) : [0.25, 0.25, 0.75, 0.75];
    const [x, y] = STEPS[event.key].map((step) => step * LEAST);
    if (event.shiftKey) [right, bottom] = [within(Math.max(left + LEAST, right + x)), within(Math.max(top + LEAST, bottom + y))];
    else if (chosen && left + x >= -1e-6 && right + x <= 1 + 1e-6 && top + y >= -1e-6 && bottom + y <= 1 + 1e-6) {
      [left, top, right, bottom] = [within(left + x), within(top + y), within(right + x), within(bottom + y)];
    }
    place(frame, [left, top, right, bottom]);
  } else if (event.key === "Enter" && chosen) choose(frame, read(frame));
  else if (event.key === "Escape" && chosen) {
    chosen.remove();  // if it was not searched for yet, no answer will remove it
    send({...frame.dataset, do: "whole"});
  }
});
