// The Node package `openai`: whole, raw, streamed and accumulated answers, completions, errors, abort.
import OpenAI from "openai";

const asked = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL: asked.url, apiKey: "any", maxRetries: 0 });
const chat = {
  model: asked.model,
  messages: [{ role: "user", content: asked.question }],
  temperature: 0,
  max_tokens: 12,
};

const { data: whole, response } = await client.chat.completions.create(chat).withResponse();

let streamedText = "";
let streamedUsage = 0;
const events = await client.chat.completions.create({
  ...chat,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const event of events) {
  streamedText += event.choices[0]?.delta?.content ?? "";
  streamedUsage = event.usage?.completion_tokens ?? streamedUsage;
}

const accumulated = await client.chat.completions.stream(chat).finalChatCompletion();
const detailed = await client.chat.completions.create({ ...chat, logprobs: true, top_logprobs: 2 });
const completion = await client.completions.create({
  model: asked.model,
  prompt: asked.prompt,
  temperature: 0,
  max_tokens: 12,
});
const scored = await client.completions.create({
  model: asked.model,
  prompt: asked.prompt,
  max_tokens: 1,
  logprobs: 1,
  echo: true,
});

const errors = [];
for (const changes of [{ temperature: 9 }, { model: "unheard-of" }]) {
  try {
    await client.chat.completions.create({ ...chat, ...changes });
    errors.push("none");
  } catch (error) {
    errors.push([error.constructor.name, error.param, error.code]);
  }
}

const endless = await client.chat.completions.create({ ...chat, max_tokens: 4000, stream: true });
let seenBeforeAbort = 0;
for await (const _ of endless) {
  seenBeforeAbort += 1;
  if (seenBeforeAbort === 3) break; // leaving the loop aborts the request
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    text: whole.choices[0].message.content,
    finish_reason: whole.choices[0].finish_reason,
    usage: whole.usage.completion_tokens,
    request_id: whole._request_id,
    request_id_header: response.headers.get("x-request-id"),
    streamed_text: streamedText,
    streamed_usage: streamedUsage,
    accumulated_text: accumulated.choices[0].message.content,
    num_top: detailed.choices[0].logprobs.content.map((entry) => entry.top_logprobs.length),
    completion: completion.choices[0].text,
    scored_text: scored.choices[0].text,
    scored_logprobs: scored.choices[0].logprobs.token_logprobs,
    errors,
    seen_before_abort: seenBeforeAbort,
    models,
  }),
);
