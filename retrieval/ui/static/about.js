// The address in the examples is that of this page.
const here = location.href.replace(/[?#].*/, "").replace(/\/$/, "");
element.querySelectorAll("code").forEach((code) => (code.textContent = code.textContent.replaceAll("http://127.0.0.1:7860", here)));
