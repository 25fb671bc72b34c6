// gRPC's own ends (grpc-js), without generated code: messages are bytes.
import { Client, Metadata, Server, ServerCredentials, credentials, status } from "@grpc/grpc-js";
import type {
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  ServiceError,
  sendUnaryData,
} from "@grpc/grpc-js";

const asIs = (bytes: Buffer): Buffer => bytes;
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/shop.Cart/${name}`,
  requestStream,
  responseStream,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
});
const service = {
  Unary: method("Unary", false, false),
  List: method("List", false, true),
  Chat: method("Chat", true, true),
  Missing: method("Missing", false, false),
  Slow: method("Slow", false, false),
};

export interface GrpcTestServer extends AsyncDisposable {
  readonly port: number;
  /** Calls that are never answered. */
  readonly slow: string[];
  /** Those that their callers gave up. */
  readonly cancelled: string[];
}

/** Answers with its name. `Slow` never does. */
export async function grpcServer(name: string): Promise<GrpcTestServer> {
  const server = new Server();
  const slow: string[] = [];
  const cancelled: string[] = [];
  server.addService(service, {
    Unary: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => {
      const trailer = new Metadata();
      trailer.set("x-served-by", name);
      done(null, Buffer.from(`${name}:${call.request.toString()}`), trailer);
    },
    List: (call: ServerWritableStream<Buffer, Buffer>) => {
      for (let number = 0; number < 3; number += 1) call.write(Buffer.from(`${name}${number}`));
      call.end();
    },
    Chat: (call: ServerDuplexStream<Buffer, Buffer>) => {
      call.on("data", (message: Buffer) => call.write(Buffer.from(`${name}:${message.toString()}`)));
      call.on("end", () => call.end());
      call.on("error", () => undefined);
    },
    Missing: (_call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) =>
      done({ code: status.NOT_FOUND, details: `${name} has none` }),
    Slow: (call: ServerUnaryCall<Buffer, Buffer>) => {
      slow.push("Slow");
      call.on("cancelled", () => cancelled.push("Slow"));
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  return {
    port,
    slow,
    cancelled,
    [Symbol.asyncDispose]: async () => server.forceShutdown(),
  };
}

/** What came of a call. */
export interface GrpcGot {
  readonly code: status;
  readonly details: string;
  readonly messages: readonly string[];
  readonly trailers: Record<string, unknown>;
}

/** One connection, kept. */
export class KeptGrpcCaller implements Disposable {
  readonly #client: Client;

  constructor(port: number) {
    this.#client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  }

  unary(
    name = "Unary",
    message = "hi",
    { metadata = {}, ...options }: { deadline?: number; metadata?: Readonly<Record<string, string>> } = {},
  ): Promise<GrpcGot> {
    const sent = new Metadata();
    for (const [key, value] of Object.entries(metadata)) sent.set(key, value);
    return new Promise((resolve) => {
      const messages: string[] = [];
      const call = this.#client.makeUnaryRequest(
        `/shop.Cart/${name}`,
        asIs,
        asIs,
        Buffer.from(message),
        sent,
        options,
        (error: ServiceError | null, answer?: Buffer) => {
          if (answer !== undefined) messages.push(answer.toString());
          if (error !== null) resolve({ code: error.code, details: error.details, messages, trailers: {} });
        },
      );
      call.on("status", ({ code, details, metadata }) => {
        if (code === status.OK) resolve({ code, details, messages, trailers: metadata.getMap() });
      });
    });
  }

  list(): Promise<GrpcGot> {
    const call = this.#client.makeServerStreamRequest(
      "/shop.Cart/List",
      asIs,
      asIs,
      Buffer.from("all"),
      new Metadata(),
    );
    return outcomeOf(call);
  }

  /** Says each word when the one before was answered; `onAnswer` may do something in between. */
  chat(words: readonly string[], onAnswer: (cancel: () => void) => void = () => undefined): Promise<GrpcGot> {
    const call = this.#client.makeBidiStreamRequest("/shop.Cart/Chat", asIs, asIs, new Metadata());
    const left = [...words];
    const say = (): void => {
      const word = left.shift();
      if (word === undefined) call.end();
      else call.write(Buffer.from(word));
    };
    const outcome = outcomeOf(call, () => {
      onAnswer(() => call.cancel());
      say();
    });
    say();
    return outcome;
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function outcomeOf(
  call: ReturnType<Client["makeServerStreamRequest"]> | ReturnType<Client["makeBidiStreamRequest"]>,
  onMessage: () => void = () => undefined,
): Promise<GrpcGot> {
  return new Promise((resolve) => {
    const messages: string[] = [];
    call.on("data", (message: Buffer) => {
      messages.push(message.toString());
      onMessage();
    });
    call.on("error", () => undefined); // 'status' says the same
    call.on("status", ({ code, details, metadata }) =>
      resolve({ code, details, messages, trailers: metadata.getMap() }),
    );
  });
}
