// A file that the server made, {name, type, content in base64}, saved as a download.
const keep = ({name, type, content, error}) => {
  if (error) return alert(error);
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(new Blob([bytes], {type})), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
