// The page works without this script. It asks before it revokes in a dialog, and shows new figures and new lines of the audit
// log, which come as markup of the gate.
"use strict";

const dialog = document.getElementById("confirm");
for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    const selected = [...form.elements].filter((field) => field.type === "checkbox" && field.checked);
    // The gate says that nothing is selected.
    if (!dialog || (form.id === "several" && selected.length === 0)) return;
    event.preventDefault();
    const post = dialog.querySelector("form");
    post.action = form.dataset.post;
    for (const old of post.querySelectorAll("[data-copied]")) old.remove();
    for (const field of [...form.querySelectorAll("input[type=hidden]"), ...selected]) {
      const copy = document.createElement("input");
      [copy.type, copy.name, copy.value, copy.dataset.copied] = ["hidden", field.name, field.value, ""];
      post.append(copy);
    }
    const number = selected.length > 0 ? `${selected.length} selected: ` : "";
    document.getElementById("question").textContent = number + form.dataset.confirm;
    dialog.querySelector("button.danger").textContent = form.dataset.do;
    dialog.showModal();
  });
}

const parsed = (markup) => new DOMParser().parseFromString(markup, "text/html");

const live = document.getElementById("live");
if (live) {
  new EventSource(live.dataset.stream).onmessage = (message) => {
    for (const part of parsed(message.data).querySelectorAll("section[id]")) {
      const old = document.getElementById(part.id);
      const isOfCharts = part.id === "live-charts" && typeof charts !== "undefined";
      if (isOfCharts && charts.update(part)) continue;
      // Where somebody is with the keyboard stays as it is.
      if (old && !old.contains(document.activeElement) && old.innerHTML !== part.innerHTML) {
        old.replaceWith(part);
        if (isOfCharts) charts.begin();
      }
    }
  };
}

const follower = document.getElementById("follow");
const lines = document.getElementById("lines");
if (follower && lines) {
  let added = 0;
  let source;
  const add = (markup) => {
    const row = parsed(`<table>${markup}</table>`).querySelector("tr");
    if (!row || document.getElementById(row.id)) return;
    lines.prepend(row);
    while (lines.rows.length > 1000) lines.lastElementChild.remove();
    added += 1;
    follower.textContent = added + (added === 1 ? " new line" : " new lines");
  };
  const follow = () => {
    source = new EventSource(follower.dataset.stream);
    source.onmessage = (message) => add(message.data);
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
  follower.after(pause);
  follow();
}
