// The page works without this script. It asks before it revokes in a dialog, and shows new numbers and new lines of
// the audit log.
"use strict";

const dialog = document.getElementById("confirm");
for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!dialog) return;
    event.preventDefault();
    const post = dialog.querySelector("form");
    post.action = form.dataset.post;
    for (const old of post.querySelectorAll("[data-copied]")) old.remove();
    for (const field of form.querySelectorAll("input[type=hidden]")) {
      const copy = field.cloneNode();
      copy.dataset.copied = "";
      post.append(copy);
    }
    document.getElementById("question").textContent = form.dataset.confirm;
    dialog.querySelector("button.danger").textContent = form.dataset.do;
    dialog.showModal();
  });
}

const numbers = document.getElementById("numbers");
if (numbers) {
  new EventSource(numbers.dataset.stream).onmessage = (message) => {
    numbers.textContent = message.data;
  };
}

const live = document.getElementById("live");
const lines = document.getElementById("lines");
if (live && lines) {
  const known = "event.id";
  const shown = new Set(["timestamp", "event.action", "event.outcome", "rotogate.actor", "client.address", "event.id"]);
  const hidden = new Set(["level", "target", "message", "event.dataset", "event.code", "rotogate.audit.boot", "rotogate.audit.seq", "rotogate.actor.role", "rotogate.actor.via", "http.request.id"]);
  let added = 0;
  let source;
  const cell = (row, kind, text) => {
    const made = document.createElement(kind);
    made.textContent = text ?? "";
    row.append(made);
    return made;
  };
  const add = (line) => {
    const id = "line-" + line[known];
    if (document.getElementById(id)) return;
    const row = document.createElement("tr");
    row.id = id;
    const head = document.createElement("th");
    head.scope = "row";
    const time = document.createElement("time");
    time.dateTime = time.title = line.timestamp;
    time.textContent = "just now";
    head.append(time);
    row.append(head);
    cell(row, "td", line["event.action"]);
    cell(row, "td", line["event.outcome"]);
    cell(row, "td", line["rotogate.actor"]);
    cell(row, "td", line["client.address"]);
    const rest = Object.entries(line).filter(([name]) => !shown.has(name) && !hidden.has(name));
    cell(row, "td", rest.map(([name, value]) => name + "=" + value).join(" ")).className = "agent";
    lines.prepend(row);
    while (lines.rows.length > 1000) lines.lastElementChild.remove();
    added += 1;
    live.textContent = added + (added === 1 ? " new line" : " new lines");
  };
  const follow = () => {
    source = new EventSource(live.dataset.stream);
    source.onmessage = (message) => add(JSON.parse(message.data));
  };
  const pause = document.createElement("button");
  pause.type = "button";
  pause.textContent = "Pause";
  pause.addEventListener("click", () => {
    if (source.readyState === EventSource.CLOSED) {
      follow();
      pause.textContent = "Pause";
    } else {
      source.close();
      pause.textContent = "Follow";
    }
  });
  live.after(pause);
  follow();
}
