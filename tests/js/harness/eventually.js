// Waits for conditions, with a deadline.
import assert from 'node:assert/strict';

/** Calls `ask` until it throws no error and its result is truthy, and returns the result. */
export async function eventually(what, ask, deadline = 10_000) {
  const end = Date.now() + deadline;
  for (let pause = 5; ; pause = Math.min(pause * 1.5, 100)) {
    let last;
    try {
      const answer = await ask();
      if (answer) return answer;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) {
      throw new Error(`not within ${deadline} ms: ${what}`, { cause: last });
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Deep equality in which a function stands for any value for which it returns true. */
export function like(actual, expected, message) {
  assert.deepStrictEqual(actual, settle(actual, expected), message);
}

function settle(actual, expected) {
  if (typeof expected === 'function') return expected(actual) ? actual : `<${expected.name || expected}>`;
  if (Array.isArray(expected)) return expected.map((item, at) => settle(actual?.[at], item));
  if (expected && Object.getPrototypeOf(expected) === Object.prototype) {
    return Object.fromEntries(Object.entries(expected).map(([key, item]) => [key, settle(actual?.[key], item)]));
  }
  return expected;
}

/** Whether the value is an ISO 8601 time in UTC with milliseconds, within the last minute. */
export function timestamp(value) {
  const shape = typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value);
  return shape && Math.abs(Date.now() - Date.parse(value)) < 60_000;
}

export function text(value) {
  return typeof value === 'string' && value.length > 0;
}

export function number(value) {
  return typeof value === 'number' && Number.isFinite(value);
}
