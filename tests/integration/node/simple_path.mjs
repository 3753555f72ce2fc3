// Drives the simple path with @grpc/grpc-js and the .proto files alone; prints one JSON object.
//
//   node simple_path.mjs upload TARGET PROTOS FILE UPLOAD_ID      continues where an earlier upload ended
//   node simple_path.mjs interrupt TARGET PROTOS FILE UPLOAD_ID   the same, but dies with SIGKILL half-way
//   node simple_path.mjs read TARGET PROTOS DIGEST OFFSET LENGTH OUT
import { createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { once } from "node:events";
import { createRequire } from "node:module";
import { finished } from "node:stream/promises";

// The packages are installed outside the source tree; NODE_MODULES_ROOT says where.
const require = createRequire(process.env.NODE_MODULES_ROOT + "/package.json");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const [mode, target, protos, ...rest] = process.argv.slice(2);
const ENTITY = "acme";
const MESSAGE_BYTES = 256 * 1024;

const definition = protoLoader.loadSync("lading_proto/ingest/v1/ingest.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { IngestService } = grpc.loadPackageDefinition(definition).lading.ingest.v1;
const client = new IngestService(target, grpc.credentials.createInsecure());

function getUpload(uploadId) {
  return new Promise((resolve, reject) => {
    client.GetUpload({ entity: ENTITY, upload_id: uploadId }, (error, response) => {
      if (!error) resolve(response);
      else if (error.code === grpc.status.NOT_FOUND) resolve({ durable_bytes: 0 });
      else reject(error);
    });
  });
}

async function upload(path, uploadId, dieHalfWay) {
  const { durable_bytes: offset } = await getUpload(uploadId);
  const file = await open(path);
  const { size } = await file.stat();
  let answer;
  const answered = new Promise((resolve, reject) => {
    answer = client.UploadFile((error, response) => (error ? reject(error) : resolve(response)));
  });
  answered.catch(() => {}); // awaited below; a failure before that must not end the process
  answer.write({ start: { entity: ENTITY, upload_id: uploadId, offset_bytes: offset } });
  let sent = 0;
  const buffer = Buffer.alloc(MESSAGE_BYTES);
  for (let at = offset; at < size; ) {
    const { bytesRead } = await file.read(buffer, 0, MESSAGE_BYTES, at);
    if (!answer.write({ data: Buffer.from(buffer.subarray(0, bytesRead)) })) await once(answer, "drain");
    at += bytesRead;
    sent += bytesRead;
    if (dieHalfWay && at >= size / 2) {
      while ((await getUpload(uploadId)).durable_bytes === 0);
      process.kill(process.pid, "SIGKILL");
    }
  }
  answer.write({ finish: { expected_size_bytes: size } });
  answer.end();
  const { digest, size_bytes } = await answered;
  await file.close();
  return { digest, size_bytes, offset, sent };
}

async function read(digest, offset, length, out) {
  const call = client.ReadFile({ entity: ENTITY, blob_digest: digest, offset_bytes: offset, length_bytes: length });
  const sink = createWriteStream(out);
  let messages = 0;
  for await (const message of call) {
    messages += 1;
    if (!sink.write(message.data)) await once(sink, "drain");
  }
  sink.end();
  await finished(sink);
  return { messages };
}

const result =
  mode === "read"
    ? await read(rest[0], Number(rest[1]), Number(rest[2]), rest[3])
    : await upload(rest[0], rest[1], mode === "interrupt");
console.log(JSON.stringify(result));
client.close();
