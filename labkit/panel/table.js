// Sorts a table: it waits for the plain table to be on the page, asks the kernel once for itables' script and
// style, which are too long to be sent where nobody looks, and draws in that table's place.

async function fetched(model) {
  const texts = (buffers) => buffers.map((part) => new TextDecoder().decode(part));
  const answer = new Promise((resolve) => {
    model.on("msg:custom", (_, buffers) => resolve(texts(buffers)));
  });
  model.send({ wanted: "sorter" });
  const [script, style] = await answer;
  document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  try {
    return (await import(address)).default;
  } finally {
    URL.revokeObjectURL(address);
  }
}

function initialize({ model }) {
  const places = () => document.querySelectorAll(`[data-labkit-table="${model.get("_place")}"]`);
  const draw = async () => {
    const sorter = (window.labkitSorter ??= await fetched(model));
    for (const place of places()) {
      const el = document.createElement("div");
      el.style.setProperty("--dt-html-background", "transparent");
      sorter.render({ model, el });
      place.replaceChildren(el);
    }
  };
  const look = () => {
    if (places().length) {
      seen.disconnect();
      draw();
    }
  };
  const seen = new MutationObserver(look);
  seen.observe(document.body, { childList: true, subtree: true });
  look();
  return () => seen.disconnect();
}

export default { initialize };
