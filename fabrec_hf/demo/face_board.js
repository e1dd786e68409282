// The face that a person annotates: zoom, pan, drag, keys and touch. It runs as the `js_on_load` of a gr.HTML, which
// gives it `element`, `props`, `trigger` and `watch`. What it shows is `props.value` (see face_board.py); what its
// person does goes to the server as events named 'act', and is drawn before the server has answered.
const host = element.querySelector('.face-board');
const root = host.shadowRoot || host.attachShadow({mode: 'open'});
root.innerHTML = `<style>
:host { display: block; color: var(--body-text-color); font: 14px/1.4 system-ui, sans-serif; }
.stage { position: relative; width: 100%; aspect-ratio: 1; overflow: hidden; border-radius: 8px; background: #14141e;
  cursor: crosshair; touch-action: pan-y; user-select: none; -webkit-user-select: none; }
.stage.zoomed { touch-action: none; }
.stage:focus-visible, button:focus-visible { outline: 3px solid #1d4ed8; outline-offset: 2px; }
:host-context(.dark) :focus-visible { outline-color: #93c5fd; }
.stage img { position: absolute; left: 0; top: 0; width: 100%; height: 100%; transform-origin: 0 0;
  pointer-events: none; }
.stage svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: hidden; }
.grip { fill: transparent; cursor: grab; touch-action: none; }
text { font: 600 13px system-ui, sans-serif; paint-order: stroke; stroke: #14141e; stroke-width: 3px;
  stroke-linejoin: round; pointer-events: none; }
.bar, .faces { display: flex; flex-wrap: wrap; gap: 6px; margin: 8px 0 0; align-items: center; }
button { font: inherit; color: inherit; background: var(--button-secondary-background-fill, transparent);
  border: 1px solid var(--border-color-primary); border-radius: 6px; min-width: 40px; min-height: 36px; padding: 4px 10px;
  cursor: pointer; }
button:disabled { opacity: .5; cursor: default; }
.faces button { padding: 3px; min-width: 0; line-height: 1.2; font-size: 12px; border-width: 2px; }
.faces button[aria-current=true] { border-color: #2563eb; box-shadow: 0 0 0 2px #2563eb; }
.faces img { display: block; width: 56px; height: 56px; border-radius: 4px; }
.faces .skipped img { filter: grayscale(1) opacity(.5); }
.legend { margin: 8px 0 0; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin: 0 4px 0 10px;
  border: 2px solid #14141e; vertical-align: -1px; }
.legend i:first-child { margin-left: 0; }
kbd { font: 600 12px ui-monospace, monospace; border: 1px solid var(--border-color-primary); border-radius: 4px;
  padding: 0 4px; }
</style>
<div class="stage" tabindex="0" role="application"><img alt="" draggable="false"><svg></svg></div>
<div class="bar"><button data-do="out" aria-label="Zoom out">−</button><button data-do="in" aria-label="Zoom in">+</button
><button data-do="whole">Whole face</button><span class="zoom"></span></div>
<div class="legend"><i style="background:#3ef5d4"></i>placed<i style="background:#14141e;border-color:#ffb020"></i
>proposed<i style="background:#fff"></i>next. <b>Left</b> is the side of the person in the picture: their left eye is on
your right. Click to place, drag to move, wheel or two fingers to zoom.</div>
<div class="legend keys"><kbd>Tab</kbd> <kbd>1</kbd>–<kbd>9</kbd> point · arrows move it (<kbd>Shift</kbd>: further) ·
<kbd>Z</kbd> undo · <kbd>H</kbd> hidden · <kbd>A</kbd> accept proposed · <kbd>Enter</kbd> next face · <kbd>+</kbd>
<kbd>−</kbd> zoom · <kbd>Esc</kbd> leave</div>
<div class="faces" role="group" aria-label="Chosen faces"></div>`;
const stage = root.querySelector('.stage'), photo = root.querySelector('img'), svg = root.querySelector('svg');
const faces = root.querySelector('.faces'), zoomText = root.querySelector('.zoom');
const LARGEST = 12, STEP = 1.5 / 720, DRAG = 4, WAIT = 10000, TOGETHER = 700;

let state = null, view = {zoom: 1, x: 0, y: 0}, sent = 0, sentAt = 0, typed = '', typedAt = 0, nudging = null;
const pointers = new Map();
let drag = null, pinch = null;

const side = () => stage.clientWidth || 1;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const toScreen = p => [(p[0] * view.zoom + view.x) * side(), (p[1] * view.zoom + view.y) * side()];
const toPicture = (x, y) => [(x / side() - view.x) / view.zoom, (y / side() - view.y) / view.zoom];
const shownAt = i => state.points[i] || (state.hidden[i] ? null : state.proposal[i]);

function act(verb, more) {
  sent = Math.max(sent + 1, Date.now());  // larger than those of other tabs and of earlier visits
  sentAt = performance.now();
  trigger('act', {verb, place: state.place, point: state.current, number: sent, ...more});
}
function flush() {
  if (!nudging) return;
  clearTimeout(nudging.timer);
  const {point, place} = nudging;
  nudging = null;
  const [x, y] = state.points[point];
  act('put', {point, place, x, y, advance: false});
}
function next(start) {
  const count = state.names.length;
  for (let step = 0; step < count; step++) {
    const i = (start + step) % count;
    if (!state.points[i] && !state.hidden[i]) return i;
  }
  return clamp(start, 1, count) - 1;
}
function put(point, [x, y], advance) {
  flush();
  [x, y] = [clamp(x, 0, 1), clamp(y, 0, 1)];
  state.current = point;
  act('put', {x, y, advance});
  state.points[point] = [x, y];
  state.hidden[point] = false;
  if (advance) state.current = next(point + 1);
  draw();
}
function select(point) {
  flush();
  state.current = point;
  act('select');
  draw();
}
function nudge(dx, dy) {
  const start = shownAt(state.current) || [0.5, 0.5];
  if (nudging && nudging.point !== state.current) flush();
  state.points[state.current] = [clamp(start[0] + dx, 0, 1), clamp(start[1] + dy, 0, 1)];
  state.hidden[state.current] = false;
  if (nudging) clearTimeout(nudging.timer);
  nudging = {point: state.current, place: state.place, timer: setTimeout(flush, 250)};
  draw();
}
function zoomAt(factor, x, y) {
  const zoom = clamp(view.zoom * factor, 1, LARGEST), [px, py] = toPicture(x, y);
  view = {zoom, x: x / side() - px * zoom, y: y / side() - py * zoom};
  settle();
}
function settle() {
  view.x = clamp(view.x, 1 - view.zoom, 0);
  view.y = clamp(view.y, 1 - view.zoom, 0);
  draw();
}

// Of eight places around each point, a label takes the one that covers the fewest points and labels.
function placeLabels(items) {
  const taken = items.map(({x, y}) => [x - 9, y - 9, x + 9, y + 9]);
  const overlap = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]))
    * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  for (const item of items) {
    const width = 8 * item.text.length + 4, height = 16;
    let best = null;
    for (const reach of [12, 24, 36]) {
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]]) {
        const cx = item.x + dx * (reach + width / 2), cy = item.y + dy * (reach + height / 2);
        const box = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2];
        const outside = box[0] < 0 || box[1] < 0 || box[2] > side() || box[3] > side() ? 1e4 : 0;
        const cost = taken.reduce((sum, other) => sum + overlap(box, other), outside) + reach / 10;
        if (!best || cost < best.cost) best = {cost, box, cx, cy};
      }
    }
    taken.push(best.box);
    Object.assign(item, best);
  }
}
function draw() {
  if (!state) return;
  photo.style.transform = `translate(${view.x * 100}%, ${view.y * 100}%) scale(${view.zoom})`;
  stage.classList.toggle('zoomed', view.zoom > 1.001);
  zoomText.textContent = `${view.zoom.toFixed(1)}×`;
  const items = [];
  state.names.forEach((name, i) => {
    const point = drag && drag.point === i && drag.moved ? drag.at : shownAt(i);
    if (!point) return;
    const [x, y] = toScreen(point), current = i === state.current;
    items.push({i, x, y, current, placed: Boolean(state.points[i]), text: current ? `${i + 1} ${name}` : `${i + 1}`});
  });
  const order = [...items].sort((a, b) => b.current - a.current);
  placeLabels(order);
  svg.replaceChildren(...order.reverse().flatMap(item => {
    const color = item.placed ? '#3ef5d4' : '#ffb020';
    const shapes = [];
    if (item.current) shapes.push(shape('circle', {cx: item.x, cy: item.y, r: 12, fill: 'none', stroke: '#14141e',
      'stroke-width': 5}), shape('circle', {cx: item.x, cy: item.y, r: 12, fill: 'none', stroke: '#fff', 'stroke-width': 2.5}));
    shapes.push(shape('circle', {class: 'dot', cx: item.x, cy: item.y, r: 5, fill: item.placed ? color : '#14141e',
      stroke: item.placed ? '#14141e' : color, 'stroke-width': 2}));
    const label = shape('text', {x: item.cx, y: item.cy + 5, 'text-anchor': 'middle', fill: item.current ? '#fff' : color});
    label.textContent = item.text;
    shapes.push(label, shape('circle', {class: 'grip', cx: item.x, cy: item.y, r: 14, 'data-point': item.i}));
    return shapes;
  }));
  const at = state.points[state.current] ? 'placed' : state.hidden[state.current] ? 'hidden' : 'not placed';
  stage.setAttribute('aria-label', `Face ${state.place + 1}, point ${state.current + 1} of ${state.names.length}: `
    + `${state.names[state.current]}, ${at}`);
}
function shape(name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
const SIGNS = {complete: '✓', begun: '…', open: '○', skipped: 'skip'};
function drawFaces() {
  faces.replaceChildren(...state.faces.map((face, place) => {
    const button = document.createElement('button'), image = document.createElement('img');
    image.src = face.picture;
    image.alt = '';
    button.className = face.state;
    button.setAttribute('aria-label', `Face ${place + 1}: ${face.state}`);
    button.setAttribute('aria-current', place === state.place);
    button.append(image, `${place + 1} ${SIGNS[face.state]}`);
    button.onclick = () => { flush(); act('go', {place}); };
    return button;
  }));
}
function show() {
  const value = props.value;
  if (!value || !value.names) return;
  // An answer to an earlier action would take back what was done since.
  if (value.number < sent && performance.now() - sentAt < WAIT || nudging) return;
  const old = state, focused = root.activeElement?.closest?.('.faces') ? root.activeElement.getAttribute('aria-label') : null;
  state = JSON.parse(JSON.stringify(value));
  if (!old || old.picture !== state.picture) {
    photo.src = state.picture;
    view = {zoom: 1, x: 0, y: 0};
    drag = pinch = null;
  }
  drawFaces();
  if (focused) faces.querySelector(`[aria-label^="${focused.split(':')[0]}:"]`)?.focus();
  draw();
}

const local = event => { const box = stage.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
stage.addEventListener('pointerdown', event => {
  if (!state || event.button > 0) return;
  stage.focus({preventScroll: true});
  stage.setPointerCapture(event.pointerId);
  const at = local(event), point = event.target.getAttribute?.('data-point');
  pointers.set(event.pointerId, at);
  if (pointers.size === 2) {
    const [a, b] = [...pointers.values()];
    pinch = {far: Math.hypot(a[0] - b[0], a[1] - b[1]) || 1, x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2};
    drag = null;
  } else if (pointers.size === 1) {
    drag = {start: at, last: at, moved: false, point: point === null || point === undefined ? null : Number(point)};
  }
  draw();
});
stage.addEventListener('pointermove', event => {
  if (!pointers.has(event.pointerId)) return;
  const at = local(event);
  pointers.set(event.pointerId, at);
  if (pinch && pointers.size === 2) {
    const [a, b] = [...pointers.values()], far = Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
    const x = (a[0] + b[0]) / 2, y = (a[1] + b[1]) / 2;
    view.x += (x - pinch.x) / side();
    view.y += (y - pinch.y) / side();
    zoomAt(far / pinch.far, x, y);
    pinch = {far, x, y};
  } else if (drag) {
    drag.moved ||= Math.hypot(at[0] - drag.start[0], at[1] - drag.start[1]) > DRAG;
    if (drag.moved && drag.point !== null) {
      drag.at = toPicture(...at);
      draw();
    } else if (drag.moved && view.zoom > 1) {
      view.x += (at[0] - drag.last[0]) / side();
      view.y += (at[1] - drag.last[1]) / side();
      settle();
    }
    drag.last = at;
  }
});
function release(event) {
  if (!pointers.delete(event.pointerId)) return;
  const done = drag;
  drag = null;
  if (pinch) { if (!pointers.size) pinch = null; return; }
  if (!done || event.type === 'pointercancel') return draw();
  if (done.moved) return done.point !== null ? put(done.point, toPicture(...local(event)), false) : draw();
  if (done.point !== null && done.point !== state.current && state.points[done.point]) return select(done.point);
  put(state.current, toPicture(...done.start), true);
}
stage.addEventListener('pointerup', release);
stage.addEventListener('pointercancel', release);
stage.addEventListener('wheel', event => {
  // Whoever scrolls past the face wants the page to move.
  if (!event.ctrlKey && root.activeElement !== stage) return;
  event.preventDefault();
  zoomAt(Math.exp(-event.deltaY / 400), ...local(event));
}, {passive: false});
const ARROWS = {ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowRight: [1, 0]};
const VERBS = {z: 'undo', h: 'hide', a: 'accept'};
stage.addEventListener('keydown', event => {
  if (!state || event.altKey || event.metaKey || event.ctrlKey && event.key.toLowerCase() !== 'z') return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, count = state.names.length;
  if (key === 'Tab') {  // from the last point, and from the first one back, the focus goes on
    const other = state.current + (event.shiftKey ? -1 : 1);
    if (other < 0 || other >= count) return flush();
    select(other);
  } else if (ARROWS[key]) {
    const step = STEP / view.zoom * (event.shiftKey ? 6 : 1);
    nudge(ARROWS[key][0] * step, ARROWS[key][1] * step);
  } else if (/^[0-9]$/.test(key)) {
    typed = performance.now() - typedAt < TOGETHER && Number(typed + key) <= count ? typed + key : key;
    typedAt = performance.now();
    if (Number(typed) >= 1 && Number(typed) <= count) select(Number(typed) - 1);
  } else if (VERBS[key]) { flush(); act(VERBS[key]);
  } else if (key === 'Enter') { flush(); act(event.shiftKey ? 'previous' : 'next');
  } else if (key === '+' || key === '=') zoomAt(1.4, side() / 2, side() / 2);
  else if (key === '-') zoomAt(1 / 1.4, side() / 2, side() / 2);
  else if (key === 'Escape') { flush(); stage.blur();
  } else return;
  event.preventDefault();
});
root.querySelector('.bar').addEventListener('click', event => {
  const what = event.target.dataset.do;
  if (what === 'whole') { view = {zoom: 1, x: 0, y: 0}; draw(); }
  else if (what) zoomAt(what === 'in' ? 1.6 : 1 / 1.6, side() / 2, side() / 2);
});
new ResizeObserver(draw).observe(stage);
watch('value', show);
show();
