/** Making elements. Text becomes text nodes, always: nothing here or elsewhere in the page parses markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; `on...` properties are listeners, others attributes; null and false children are left out. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same in SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Say something to a screen reader, once; sighted people see it elsewhere. */
export function announce(text) {
  byId("announce").textContent = text;
}

/** Replace what `node` shows. */
export function show(node, ...children) {
  node.replaceChildren(...children.flat().filter(Boolean));
}
