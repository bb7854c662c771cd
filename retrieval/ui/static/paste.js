// Files that are chosen, pasted, or dropped anywhere on the page go to the drop zone, or to the button that adds some.
// The browser's idea of their type does not count (none knows HEIC everywhere): the server looks at what is in them.
const kinds = "image/*,.heic,.heif,.heics,.hif,.avif";
const asPicture = (file) => (file.type.startsWith("image/") ? file : new File([file], file.name, {type: "image/unknown"}));
const fill = (input, files) => {
  const chosen = new DataTransfer();
  for (const file of files) chosen.items.add(asPicture(file));
  input.files = chosen.files;
};
const take = (event) => {
  const data = event.clipboardData ?? event.dataTransfer, files = [...(data?.files ?? [])];
  if (!files.length || (data.types.includes("text/plain") && event.target.matches?.("input, textarea"))) return;
  event.preventDefault(); // or the browser leaves the page to show the file
  event.stopPropagation();
  event.target.dispatchEvent?.(new DragEvent("dragleave", {bubbles: true}));
  const folder = [...data.items].find((item) => item.webkitGetAsEntry?.()?.isDirectory);
  if (folder) return alert(folderSentence.replace("{name}", folder.webkitGetAsEntry().name));
  const add = event.target.closest?.("#add");
  const input = document.querySelector(add ? "input[type=file]:has(+ #add)" : "#query input[type=file]");
  if (!input) return;
  fill(input, add ? files : [files.find(({type}) => type.startsWith("image/")) ?? files[0]]);
  input.dispatchEvent(new Event("change", {bubbles: true}));
};
document.addEventListener("paste", take, true);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", take, true);
document.addEventListener("click", ({target}) => {
  if (target.matches?.("input[type=file]")) target.accept = kinds;
}, true);
document.addEventListener("change", ({target}) => {
  if (target.matches?.("input[type=file]") && [...target.files].some(({type}) => !type.startsWith("image/"))) fill(target, [...target.files]);
}, true);
