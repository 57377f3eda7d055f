// Elements without markup in strings: the page's policy forbids those, and a file name cannot become markup.

export const byId = (id) => document.getElementById(id);

/** An HTML element: attributes by name, `on…` as listeners, false and null left out; then its children. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let said = [];

/** Say something to screen readers, once; what is said at one time is one announcement. */
export function announce(text) {
  if (!said.length) {
    setTimeout(() => {
      byId("announcement").textContent = said.join(" ");
      said = [];
    }, 50);
  }
  said.push(text);
}
