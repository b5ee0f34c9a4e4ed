// What the npm packages of OpenAI, Anthropic and Vercel see of a server whose model thinks, says something and calls get_weather twice.
//
// usage: node clients.mjs http://127.0.0.1:8081

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const url = process.argv[2];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const question = [{ role: "user", content: "Weather in Oslo and Rome?" }];
const both = ["Oslo", "Rome"];
const cities = (calls) => calls.map((call) => JSON.parse(call.function.arguments).city);

const checks = {
  async "openai: chat"(model) {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
    const whole = await client.chat.completions.create({ model, messages: question, tools });
    assert.deepEqual(cities(whole.choices[0].message.tool_calls), both);
    const stream = client.chat.completions.stream({ model, messages: question, tools });
    const final = await stream.finalChatCompletion();
    assert.deepEqual(cities(final.choices[0].message.tool_calls), both);
    const several = await client.chat.completions.create({ model, messages: question, n: 2, logprobs: true, max_tokens: 20 });
    assert.equal(several.choices.length, 2);
    const response = await client.responses.create({ model, input: "Weather?", tools: [{ type: "function", name: "get_weather", parameters, strict: false }] });
    assert.equal(response.output_text, "Let me look.");
    const abort = await client.chat.completions.create({ model, messages: question, stream: true });
    for await (const _ of abort) break;
  },
  async "anthropic: messages"(model) {
    const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
    const tools = [{ name: "get_weather", input_schema: parameters }];
    const options = { model, max_tokens: 400, messages: question, tools };
    const whole = await client.messages.create(options);
    const names = whole.content.map((block) => block.type);
    assert.deepEqual(names, ["thinking", "text", "tool_use", "tool_use"]);
    const final = await client.messages.stream(options).finalMessage();
    assert.deepEqual(final.content.slice(2).map((block) => block.input.city), both);
    assert.ok((await client.messages.countTokens({ model, messages: question })).input_tokens > 3);
  },
  async "ai: openai-compatible"(model) {
    const provider = createOpenAICompatible({ name: "served", baseURL: `${url}/v1`, supportsStructuredOutputs: true });
    const tools = { get_weather: tool({ inputSchema: jsonSchema(parameters) }) };
    const chat = provider(model);
    const whole = await generateText({ model: chat, prompt: "Weather?", tools });
    assert.deepEqual(whole.toolCalls.map((call) => call.input.city), both);
    assert.equal(whole.text, "Let me look.");
    assert.equal(whole.reasoningText, "A call, so.");
    const stream = streamText({ model: chat, prompt: "Weather?", tools });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, "Let me look.");
    assert.deepEqual((await stream.toolCalls).map((call) => call.input.city), both);
    const schema = jsonSchema({ type: "object", properties: { color: { enum: ["red", "blue"] } }, required: ["color"], additionalProperties: false });
    const { object } = await generateObject({ model: chat, schema, prompt: "A color, please." });
    assert.ok(["red", "blue"].includes(object.color));
    const required = await generateText({ model: chat, prompt: "Weather?", tools, toolChoice: "required", maxOutputTokens: 200 });
    assert.ok(required.toolCalls.length <= 1);
  },
};

const models = await (await fetch(`${url}/v1/models`)).json();
let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check(models.data[0].id);
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}`);
    console.log(error);
  }
}
console.log(`npm: ${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
