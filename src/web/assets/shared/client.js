// How do the pages talk to the server? One client: credentials, errors in plain words, event streams.

/** What the server answered instead of a result. `status` 0 is a lost network. */
class ApiError extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter ?? null;
  }

  static async of(response) {
    let message = "";
    try {
      message = (await response.json()).error?.message ?? "";
    } catch {
      // A proxy's own error page: the status has to do.
    }
    const seconds = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
    return new ApiError(response.status, message, Number.isFinite(seconds) ? seconds : null);
  }
}

/** The status an error would have had, had it come before the stream began. */
const STATUS_OF_CODE = {
  conflict: 409,
  rate_limit_exceeded: 429,
  queue_full: 429,
  not_ready: 503,
  deadline_exceeded: 504,
};

/** Events out of a server-sent event stream, however it is cut into pieces. */
class EventParser {
  constructor() {
    this.rest = "";
    this.event = "";
    this.data = [];
  }

  /** The events that `text` completes. */
  push(text) {
    const events = [];
    this.rest += text;
    for (;;) {
      const end = this.rest.search(/[\r\n]/);
      // A carriage return at the very end may be half of a line break: wait for the other half.
      if (end < 0 || (this.rest[end] === "\r" && end === this.rest.length - 1)) return events;
      const line = this.rest.slice(0, end);
      this.rest = this.rest.slice(end + (this.rest.startsWith("\r\n", end) ? 2 : 1));
      this.line(line, events);
    }
  }

  line(line, events) {
    if (line === "") {
      if (this.data.length > 0) events.push({ event: this.event || "message", data: this.data.join("\n") });
      this.event = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    if (field === "event") this.event = value;
  }
}

class Client {
  /** `mint` is called for a fresh token when the server says 401; it may give null. */
  constructor(base, { token = null, mint = null } = {}) {
    this.base = base.replace(/\/+$/, "");
    this.token = token;
    this.mint = mint;
  }

  async request(method, path, { body, signal, type } = {}) {
    if (!this.token && this.mint) this.token = await this.mint();
    let response = await this.send(method, path, { body, signal, type });
    if (response.status === 401 && this.mint) {
      this.token = await this.mint();
      if (this.token) response = await this.send(method, path, { body, signal, type });
    }
    if (!response.ok) throw await ApiError.of(response);
    return response;
  }

  async send(method, path, { body, signal, type }) {
    const headers = {};
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    if (body !== undefined) headers["content-type"] = type ?? "application/json";
    const init = { method, headers, signal, cache: "no-store" };
    if (body !== undefined) init.body = type ? body : JSON.stringify(body);
    try {
      return await fetch(this.base + path, init);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "");
    }
  }

  async json(method, path, body) {
    const response = await this.request(method, path, { body });
    const text = await response.text();
    return text ? JSON.parse(text) : null;
  }

  /** The JSON events of a streamed answer, in order; an error event is thrown. */
  async *stream(path, body, signal) {
    const response = await this.request("POST", path, { body: { ...body, stream: true }, signal });
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    const parser = new EventParser();
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError(0, "");
      }
      const text = piece.done ? decoder.decode() : decoder.decode(piece.value, { stream: true });
      for (const { event, data } of parser.push(text)) {
        if (data === "[DONE]") return;
        const value = JSON.parse(data);
        if (value.error) throw new ApiError(STATUS_OF_CODE[value.error.code] ?? 500, value.error.message ?? "");
        yield { event, value };
      }
      // A finished answer says [DONE] first; without it the connection broke.
      if (piece.done) throw new ApiError(0, "");
    }
  }
}

/** What a person is told about an error, and whether trying again can help. */
function explain(error) {
  const wait = error.retryAfter ? `Please try again in ${error.retryAfter} seconds.` : "Please try again in a moment.";
  switch (error.status) {
    case 0:
      return { text: "The connection to the server was lost. Check your network and try again.", retry: true };
    case 401:
      return { text: "You are not signed in, or your sign-in has ended.", retry: false };
    case 403:
      return { text: error.message || "This is not allowed here.", retry: false };
    case 413:
      return { text: "This is too long to send. Please shorten it.", retry: false };
    case 429:
      return { text: `Many questions are being asked right now. ${wait}`, retry: true };
    case 503:
      return { text: `The assistant is starting or restarting. ${wait}`, retry: true };
    case 504:
      return { text: "The answer took too long. Please try again.", retry: true };
    default:
      if (error.status >= 400 && error.status < 500) {
        return { text: sentence(error.message) || "The server did not understand this.", retry: false };
      }
      return { text: sentence(error.message) || "Something went wrong on the server. Please try again.", retry: true };
  }
}

function sentence(text) {
  if (!text) return "";
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
