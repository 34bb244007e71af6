declare global {
  namespace Express {
    interface Request {
      /** The data of the session: JSON for each key. Changes are written before the response is sent. */
      session: Record<string, any>;
    }
  }
}

export {};
