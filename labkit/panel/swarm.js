// Shows the picture that the kernel makes, and tells the kernel whether anybody can see it and is there.

const AWAY_MS = 300_000; // without a movement, a key or a touch
const LOOK_MS = 10_000; // between two looks whether anybody is there
const MOVES = ["pointermove", "pointerdown", "keydown", "wheel", "touchstart"];

function render({ model, el }) {
  let onScreen = false;
  let moved = Date.now();
  const draw = () => {
    el.innerHTML = model.get("picture"); // every word in it is escaped where it is made
  };
  const tell = () => {
    const shown = onScreen && !document.hidden && Date.now() - moved < AWAY_MS;
    if (model.get("shown") !== shown) {
      model.set("shown", shown);
      model.save_changes();
    }
  };
  const here = () => {
    moved = Date.now();
    tell();
  };
  const otherView = () => onScreen && tell(); // one that was closed may have said that nobody sees it
  const observer = new IntersectionObserver((entries) => {
    onScreen = entries.at(-1).isIntersecting;
    tell();
  });
  observer.observe(el);
  const looks = setInterval(tell, LOOK_MS);
  document.addEventListener("visibilitychange", tell);
  for (const move of MOVES) {
    document.addEventListener(move, here, { capture: true, passive: true });
  }
  model.on("change:picture", draw);
  model.on("change:shown", otherView);
  draw();
  return () => {
    observer.disconnect();
    clearInterval(looks);
    for (const move of MOVES) {
      document.removeEventListener(move, here, { capture: true });
    }
    document.removeEventListener("visibilitychange", tell);
    model.off("change:picture", draw);
    model.off("change:shown", otherView);
    onScreen = false;
    tell();
  };
}

export default { render };
