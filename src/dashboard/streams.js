// The page of open streams, kept fresh: it is asked for again and again, and what differs is taken
// over. What it shows is made in one place, the server. What is read stays where it is: nodes
// change, and are not made anew.

const EVERY = 2000;
const PATIENCE = 10_000;

const pause = document.getElementById('pause');
const trouble = document.getElementById('trouble');
let isPaused = false;
let timer = 0;

/** The page as it is now. A document that comes this way runs no script. */
function fresh() {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open('GET', location.href);
    request.responseType = 'document';
    request.timeout = PATIENCE;
    request.onload = () => (request.status === 200 && request.response ? done(request.response) : failed(new Error(`the answer was ${request.status}`)));
    request.onerror = request.ontimeout = () => failed(new Error('there is no answer'));
    request.send();
  });
}

/** Makes a node what another one is. */
function become(old, now) {
  if (old.isEqualNode(now)) return;
  if (old.nodeName !== now.nodeName) {
    old.replaceWith(document.importNode(now, true));
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = now.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const [olds, nows] = [[...old.childNodes], [...now.childNodes]];
  nows.forEach((child, at) => (at < olds.length ? become(olds[at], child) : old.append(document.importNode(child, true))));
  olds.slice(nows.length).forEach(child => child.remove());
}

async function refresh() {
  clearTimeout(timer);
  try {
    const page = await fresh();
    if (isPaused) return;
    document.title = page.title;
    for (const id of ['as-of', 'view']) become(document.getElementById(id), page.getElementById(id));
    say('');
  } catch (error) {
    say(`Not fresh: ${error.message}. Asking again.`);
  } finally {
    clearTimeout(timer);
    if (!isPaused && !document.hidden) timer = setTimeout(refresh, EVERY);
  }
}

function say(text) {
  if (trouble.textContent !== text) trouble.textContent = text;
}

pause.hidden = false;
pause.onclick = () => {
  isPaused = !isPaused;
  pause.setAttribute('aria-pressed', isPaused);
  if (!isPaused) refresh();
};
document.addEventListener('visibilitychange', () => !document.hidden && !isPaused && refresh());
timer = setTimeout(refresh, EVERY);
