// The user's sessions, and what happened to them.
const sessions = document.querySelector("#sessions");
const activity = document.querySelector("#activity");

async function ask(path, method = "GET") {
  const response = await fetch(`/session/${path}`, { method, headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.status === 204 ? undefined : response.json();
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function button(label, action) {
  const made = element("button", label);
  made.addEventListener("click", action);
  return made;
}

const at = (time) => new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

function device({ session_id, description, ip_address, login_time, current }) {
  const text = `${description}, ${ip_address}, since ${at(login_time)}`;
  if (current) return element("li", element("span", text), "this one");
  return element("li", element("span", text), button("Log out", async () => {
    await ask(`sessions/${session_id}/end`, "POST");
    await show();
  }));
}

function happened({ time, event, user_agent, ip_address }) {
  const row = element("tr", ...[at(time), event, user_agent, ip_address].map((text) => element("td", text)));
  row.title = user_agent; // the cell shows only its beginning
  return row;
}

async function show() {
  const [live, past] = await Promise.all([ask("sessions"), ask("activity")]);
  sessions.replaceChildren(...live.sessions.map(device));
  activity.replaceChildren(...past.activity.slice(0, 10).map(happened));
}

document.querySelector("#end-others").addEventListener("click", async () => {
  await ask("sessions/end-others", "POST");
  await show();
});

await show();
