// Text for people.

const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

// A name in which characters that are invisible, or change the direction of their neighbours, are spelt out.
export const visible = (name) => String(name).replace(INVISIBLE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;
export const number = (value) => value.toLocaleString("en");
