// On each page of a user who is logged in: warn before the session ends, and leave the page when it has ended.
import { watchSession } from "/session/session.js";

const watch = watchSession({ required: true, warnBefore: 60 });

// The event that the session has ended may arrive before the response to the form, which deletes the cookies. Leaving
// the page then would cancel that response.
document.querySelector('form[action="/session/logout"]').addEventListener("submit", () => watch.stop());
