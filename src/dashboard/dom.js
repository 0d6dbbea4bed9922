// Elements from data. Text is only ever set as text: nothing of a resource becomes markup.

const SVG = 'http://www.w3.org/2000/svg';

export const $ = id => document.getElementById(id);

/** An element with properties (`class`, `data-…`, `aria-…` and the like as attributes). */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  set(element, properties);
  element.append(...children);
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  set(element, attributes);
  element.append(...children);
  return element;
}

function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') element[name] = value;
    else if (value === false || value === null) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? '' : value);
  }
}

/** Sets a text only where it differs: what stands still costs nothing, and is not read out again. */
export function say(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

export function attribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}
