// On each page of a user who is logged in: warn before the session ends, and leave the page when it has ended.
import { watchSession } from "/session/session.js";

watchSession({ required: true, warnBefore: 60 });
