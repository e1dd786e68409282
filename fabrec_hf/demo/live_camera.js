// The camera of the page Live camera. It runs as the `js_on_load` of a gr.HTML, which gives it `element`, `props` and
// `server`. A frame goes to `server.look` (see live_camera.py); when its landmarks are back, frame and landmarks are
// drawn together and the next frame is taken, so that points never lag behind the picture.
const host = element.querySelector('.live-camera'), legend = JSON.parse(JSON.stringify(props.legend));
const root = host.shadowRoot || host.attachShadow({mode: 'open'});
root.innerHTML = `<style>
:host { display: block; color: var(--body-text-color); font: 14px/1.4 system-ui, sans-serif; }
canvas { display: block; width: 100%; max-width: 720px; aspect-ratio: 4 / 3; border-radius: 8px; background: #14141e;
  transform: scaleX(-1); }
.bar { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; }
button { font: inherit; font-weight: 600; color: #fff; background: #1d4ed8; border: 0; border-radius: 6px;
  min-height: 40px; padding: 6px 16px; cursor: pointer; }
.stop { color: inherit; background: transparent; border: 1px solid var(--border-color-primary); }
button:disabled { opacity: .5; cursor: default; }
button:focus-visible, input:focus-visible { outline: 3px solid #1d4ed8; outline-offset: 2px; }
:host-context(.dark) :focus-visible { outline-color: #93c5fd; }
label { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center; }
input { width: 160px; accent-color: #1d4ed8; }
output { display: block; min-height: 1.4em; margin: 8px 0; font-variant-numeric: tabular-nums; }
</style>
<div class="bar"><button class="start">Start the camera</button><button class="stop" disabled>Stop</button>
<label>Leave out landmarks that score lower than <span><input type="range" min="0" max="1" step="0.05" value="0"> <span
class="least">0.00</span></span></label></div>
<output aria-live="off"></output>
<canvas width="640" height="480" role="img" aria-label="The camera with landmarks"></canvas>`;
const canvas = root.querySelector('canvas'), context = canvas.getContext('2d');
const [start, stop] = ['.start', '.stop'].map(name => root.querySelector(name));
const slider = root.querySelector('input'), output = root.querySelector('output');
const RATE_FRAMES = 30, QUALITY = 0.8;
const DENIED = {
  NotAllowedError: 'This page may not use the camera: allow it in the address bar, then start again.',
  NotFoundError: 'There is no camera: plug one in, then start again.',
  NotReadableError: 'Another program uses the camera: close it, then start again.',
};
let visit = null;

function dot(x, y, radius, color) {
  context.fillStyle = color;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}
function drawFace({points, scores, box, roll}, least) {
  const [x, y, width, height] = box, size = Math.max(width, height);
  const at = i => [points[2 * i] + 0.5, points[2 * i + 1] + 0.5], seen = i => scores[i] >= least;
  context.lineWidth = Math.max(1, size / 220);
  context.strokeStyle = 'rgba(255, 255, 255, 0.65)';
  context.save();
  context.translate(x + width / 2, y + height / 2);
  context.rotate(roll * Math.PI / 180);
  context.strokeRect(-width / 2, -height / 2, width, height);
  context.restore();
  context.beginPath();
  for (const [one, other] of legend.edges) if (seen(one) && seen(other)) {
    context.moveTo(...at(one));
    context.lineTo(...at(other));
  }
  context.stroke();
  // Large enough for the screen, as long as points do not hide the face.
  const visible = 1.7 * canvas.width / (canvas.clientWidth || canvas.width);
  const radius = Math.max(size / 75, Math.min(visible, size / 40));
  for (let i = 0; i < scores.length; i++) if (seen(i)) {
    dot(...at(i), 1.35 * radius, 'rgba(20, 20, 30, 0.67)');
    dot(...at(i), radius, legend.colors[Math.round(scores[i] * (legend.colors.length - 1))]);
  }
}
// A camera is let go of, too, where another page of the demonstration was opened.
const isShown = () => host.isConnected && host.getClientRects().length > 0;

async function openCamera() {
  if (!navigator.mediaDevices) throw new DOMException('', 'NotAllowedError');  // not over plain HTTP from elsewhere
  const video = document.createElement('video');
  video.muted = video.playsInline = true;
  video.srcObject = await navigator.mediaDevices.getUserMedia({video: {width: 640, height: 480, facingMode: 'user'}});
  await video.play();
  return video;
}
function grab(video, held) {
  const scale = Math.min(1, legend.side / Math.max(video.videoWidth, video.videoHeight));
  held.width = Math.round(scale * video.videoWidth);
  held.height = Math.round(scale * video.videoHeight);
  // The picture is read back at once, which a canvas of the GPU would be slow at.
  held.getContext('2d', {willReadFrequently: true}).drawImage(video, 0, 0, held.width, held.height);
  return held.toDataURL('image/jpeg', QUALITY);
}
function show(held, faces) {
  if (canvas.width !== held.width || canvas.height !== held.height) {
    [canvas.width, canvas.height] = [held.width, held.height];
    canvas.style.aspectRatio = `${held.width} / ${held.height}`;
  }
  context.drawImage(held, 0, 0);
  for (const face of faces) drawFace(face, Number(slider.value));
}
function rate(times) {
  times.push(performance.now());
  if (times.length > RATE_FRAMES) times.shift();
  return times.length < 2 ? 0 : 1000 * (times.length - 1) / (times.at(-1) - times[0]);
}
async function follow(mine, video) {
  const held = document.createElement('canvas'), times = [];
  for (let first = true; mine === visit && isShown(); first = false) {
    const answer = await server.look({visit: mine, first, picture: grab(video, held)});
    if (mine !== visit) return '';
    if (!answer) return 'The server does not answer: start again.';
    if (answer.stop) return answer.stop;
    show(held, answer.faces);
    const separator = answer.faces.length ? ',' : '.';
    output.value = `${rate(times).toFixed(1)} frames a second${separator} ${answer.word}`;
    if (document.hidden) await new Promise(requestAnimationFrame);  // which comes when the window is seen again
  }
  return '';
}
start.onclick = async () => {
  const mine = visit = Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16)).join('-');
  [start.disabled, stop.disabled] = [true, false];
  output.value = 'Waiting for the camera.';
  let video = null, word = '';
  try {
    video = await openCamera();
    word = await follow(mine, video);
  } catch (error) {
    word = DENIED[error.name] || `The camera cannot be used (${error.name}).`;
  }
  for (const track of video?.srcObject.getTracks() ?? []) track.stop();
  if (visit !== mine && visit !== null) return;
  visit = null;
  [start.disabled, stop.disabled] = [false, true];
  output.value = word;
};
stop.onclick = () => { visit = null; };
slider.oninput = () => { root.querySelector('.least').textContent = Number(slider.value).toFixed(2); };
