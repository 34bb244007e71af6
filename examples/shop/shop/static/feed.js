// Keeps the list of orders up to date. The server closes the WebSocket when the session ends.
const live = document.querySelector("#live");
const list = document.querySelector("#orders");
const SESSION_ENDED = 1008; // with any other code it makes sense to connect again

function show(orders) {
  list.replaceChildren(...orders.map((order) => {
    const row = document.createElement("tr");
    for (const text of [order.number, order.items, `${(order.total / 100).toFixed(2)} €`, order.state]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    return row;
  }));
}

function connect(wait = 500) {
  const socket = new WebSocket(new URL("/account/feed", location.href.replace(/^http/, "ws")));
  socket.onopen = () => { live.textContent = "connected"; wait = 500; };
  socket.onmessage = (message) => show(JSON.parse(message.data));
  socket.onclose = (event) => {
    live.textContent = `closed (${event.code})`;
    if (event.code !== SESSION_ENDED) setTimeout(connect, wait, Math.min(wait * 2, 30000));
  };
}

connect();
