// Shows the picture that the kernel makes, and tells the kernel whether anybody can see it.

function render({ model, el }) {
  let onScreen = false;
  const draw = () => {
    el.innerHTML = model.get("picture"); // every word in it is escaped where it is made
  };
  const tell = () => {
    const shown = onScreen && !document.hidden;
    if (model.get("shown") !== shown) {
      model.set("shown", shown);
      model.save_changes();
    }
  };
  const otherView = () => onScreen && tell(); // one that was closed may have said that nobody sees it
  const observer = new IntersectionObserver((entries) => {
    onScreen = entries.at(-1).isIntersecting;
    tell();
  });
  observer.observe(el);
  document.addEventListener("visibilitychange", tell);
  model.on("change:picture", draw);
  model.on("change:shown", otherView);
  draw();
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", tell);
    model.off("change:picture", draw);
    model.off("change:shown", otherView);
    onScreen = false;
    tell();
  };
}

export default { render };
