import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

import { type CallerKey, callerKey, checkKeyIsProtected, KEY_OPTIONS, type KeyOptions } from "./caller-key";
import { Circuit } from "./circuit";
import { errorOfStatus, SessiondError } from "./errors";
import type { ProtoGrpcType } from "./generated/session_authority";
import type { SessionAuthorityClient, SessionAuthorityDefinition } from "./generated/sessiond/v1/SessionAuthority";
import { optionError } from "./options";

/** How to reach the authority. */
export interface ConnectionOptions extends KeyOptions {
  /** Its address: `HOST:PORT` or `unix:PATH`. */
  target: string;
  /** The application whose sessions are meant. Empty: `default`. */
  application?: string;
  /** Milliseconds for each call, its repetition included. Default: 5,000. */
  timeout?: number;
  /** TLS, for example `grpc.credentials.createSsl(...)`. Default: plaintext, for loopback and Unix sockets. */
  credentials?: grpc.ChannelCredentials;
  /** Options of the gRPC channel. */
  channelOptions?: grpc.ChannelOptions;
}

export const CONNECTION_OPTIONS = [
  "target",
  "application",
  "timeout",
  "credentials",
  "channelOptions",
  ...KEY_OPTIONS,
] as const;

type Definition = SessionAuthorityDefinition;
/** The calls that this package makes. */
type Method =
  | "AuthenticateSession"
  | "CreateSession"
  | "GetAuthority"
  | "GetSessionData"
  | "ListSessions"
  | "RevokeSession"
  | "RevokeSessions"
  | "UpdateSessionData"
  | "ValidateSession";
type RequestOf<M extends Method> = Definition[M] extends loader.MethodDefinition<infer I, any, any, any> ? I : never;
type ResponseOf<M extends Method> = Definition[M] extends loader.MethodDefinition<any, any, any, infer O> ? O : never;
/** What a caller passes: `application` and `requestId` are filled in here. */
type Fields<M extends Method> = Omit<RequestOf<M>, "application" | "requestId">;

/** Milliseconds before a call that found no authority is repeated. */
const RETRY_PAUSE = 100;
const DEFAULT_TIMEOUT = 5_000;
/** Milliseconds that a revocation that waits for caches may take: the contract's 6 s, twice. */
const WAITING_TIMEOUT = 12_000;
/** The calls that change something, and so carry a `request_id`, which makes their repetition safe. */
const CHANGES = new Set<Method>([
  "AuthenticateSession",
  "CreateSession",
  "RevokeSession",
  "RevokeSessions",
  "UpdateSessionData",
]);
const CONTRACT = join(__dirname, "..", "proto");

let loaded: ProtoGrpcType | undefined;

function contract(): ProtoGrpcType {
  if (loaded === undefined) {
    const definition = loader.loadSync("sessiond/v1/session_authority.proto", {
      includeDirs: [CONTRACT],
      longs: Number,
      enums: String,
      defaults: true,
    });
    loaded = grpc.loadPackageDefinition(definition) as unknown as ProtoGrpcType;
  }
  return loaded;
}

/** Milliseconds of a clock that is never set back. */
export function monotonic(): number {
  return performance.now();
}

/** The connection to the authority. It repeats a failed call once, and fails fast during an outage. */
export class Authority {
  readonly application: string;
  /** Whether calls send the key of a caller. */
  readonly sendsKey: boolean;
  readonly #client: SessionAuthorityClient;
  readonly #timeout: number;
  readonly #key: CallerKey | undefined;
  readonly #circuit = new Circuit();

  constructor(options: ConnectionOptions) {
    const { target, application = "", timeout = DEFAULT_TIMEOUT } = options;
    if (typeof target !== "string" || target === "") {
      throw optionError("target", target, 'the authority\'s address, such as "127.0.0.1:7443"');
    }
    if (typeof application !== "string") {
      throw optionError("application", application, "the name of a configured application");
    }
    if (typeof timeout !== "number" || !(timeout > 0)) {
      throw optionError("timeout", timeout, "a positive number of milliseconds");
    }
    const credentials = options.credentials ?? grpc.credentials.createInsecure();
    this.application = application;
    this.#timeout = timeout;
    this.#key = callerKey(options);
    this.sendsKey = this.#key !== undefined;
    if (this.#key !== undefined) {
      checkKeyIsProtected(this.#key, target, credentials);
    }
    this.#client = new (contract().sessiond.v1.SessionAuthority)(target, credentials, {
      "grpc.enable_http_proxy": 0, // calls to loopback would go through the environment's proxy too
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1_000,
      ...options.channelOptions,
    });
  }

  /** Make a call. `requestId`: only if the call must be the same one as an earlier call. */
  async call<M extends Method>(method: M, fields: Fields<M>, requestId?: string): Promise<ResponseOf<M>> {
    const own = CHANGES.has(method) ? { requestId: requestId ?? randomUUID() } : {};
    const request = (
      method === "GetAuthority" ? fields : { application: this.application, ...own, ...fields }
    ) as RequestOf<M>;
    const waits = "wait" in fields && fields.wait === "REVOCATION_WAIT_FOR_CACHES";
    const deadline = monotonic() + (waits ? Math.max(this.#timeout, WAITING_TIMEOUT) : this.#timeout);
    try {
      return await this.#attempt(method, request, deadline);
    } catch (error) {
      if (!isTransient(error) || monotonic() + RETRY_PAUSE >= deadline) {
        throw error;
      }
    }
    await pause(RETRY_PAUSE);
    return this.#attempt(method, request, deadline);
  }

  /** Close the connection. Calls that are under way fail. */
  close(): void {
    this.#client.close();
  }

  async #attempt<M extends Method>(method: M, request: RequestOf<M>, deadline: number): Promise<ResponseOf<M>> {
    const ticket = {};
    const began = monotonic();
    const cause = this.#circuit.admit(ticket, began);
    if (cause !== "") {
      throw new SessiondError("unavailable", cause);
    }
    try {
      const response = await this.#send(method, request, deadline - began);
      this.#circuit.reached(monotonic());
      return response;
    } catch (error) {
      const { code = grpc.status.UNKNOWN, details = "" } = error as grpc.ServiceError;
      const failure = errorOfStatus(method, code, details + this.#hint(code));
      if (code === grpc.status.UNAVAILABLE) {
        this.#circuit.refused(ticket, failure.message, monotonic());
        throw Object.defineProperty(failure, TRANSIENT, { value: true });
      }
      if (code === grpc.status.DEADLINE_EXCEEDED) {
        this.#circuit.timedOut(ticket, failure.message, began, monotonic());
      } else {
        this.#circuit.reached(monotonic());
      }
      throw failure;
    }
  }

  /** What an operator needs to know if the authority refused this caller: which key was sent. */
  #hint(code: number): string {
    if (code !== grpc.status.UNAUTHENTICATED && code !== grpc.status.PERMISSION_DENIED) {
      return "";
    }
    const sent = this.#key === undefined ? "no key: set the option keyFile" : `the key from ${this.#key.source}`;
    return ` (this process sends ${sent})`;
  }

  #send<M extends Method>(method: M, request: RequestOf<M>, milliseconds: number): Promise<ResponseOf<M>> {
    type Unary = (
      request: RequestOf<M>,
      metadata: grpc.Metadata,
      options: grpc.CallOptions,
      callback: (error: grpc.ServiceError | null, response?: ResponseOf<M>) => void,
    ) => void;
    const unary = (this.#client[method] as unknown as Unary).bind(this.#client);
    const metadata = new grpc.Metadata();
    if (this.#key !== undefined) {
      metadata.set("authorization", `Bearer ${this.#key.key.reveal()}`);
    }
    return new Promise((resolve, reject) => {
      unary(request, metadata, { deadline: Date.now() + milliseconds }, (error, response) => {
        if (error !== null || response === undefined) {
          reject(error ?? new Error("no response"));
        } else {
          resolve(response);
        }
      });
    });
  }
}

const TRANSIENT = Symbol("transient");

function isTransient(error: unknown): boolean {
  return error instanceof Error && TRANSIENT in error;
}
