// Makes elements of the page. All text goes in as text, so nothing that a server sends becomes HTML.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") {
      made.addEventListener("click", value);
    } else if (value === true) {
      made.setAttribute(name, "");
    } else if (value !== false && value != null) {
      made.setAttribute(name, value);
    }
  }
  made.append(...children.flat().filter((child) => child != null && child !== false));
  return made;
}

export function button(label, onclick, attributes = {}) {
  return element("button", { type: "button", class: "labkit-button", onclick, ...attributes }, label);
}

// What stands between backticks becomes code, as in the labs' own text.
export function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

// Points with one digit after the point, where they have one.
export function inPoints(points) {
  return String(Math.round(points * 10) / 10);
}

// Replaces what a box holds, and leaves the keyboard's focus on the element with the same data-key: in a
// field with what was typed in it, and at the same place.
export function refill(box, ...children) {
  const had = box.contains(document.activeElement) ? document.activeElement : null;
  const { value, selectionStart, selectionEnd } = had ?? {};
  box.replaceChildren(...children.flat().filter((child) => child != null && child !== false));
  const now = had?.dataset.key ? box.querySelector(`[data-key="${CSS.escape(had.dataset.key)}"]`) : null;
  now?.focus();
  if (now && selectionStart != null) {
    now.value = value;
    now.setSelectionRange(selectionStart, selectionEnd);
  }
}
