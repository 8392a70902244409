// Makes tokens as the applications' identity services sign them.
import { createHmac } from 'node:crypto';

export const SECRET = 'a-secret-of-the-tests-with-more-than-32-bytes';
export const HOUR = 3600;

/** A JWT. `exp` is an hour from now, unless the claims set it; `undefined` leaves it out. */
export function token(claims, { secret = SECRET, header = {}, algorithm = 'HS256' } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const head = encode({ alg: algorithm, typ: 'JWT', ...header });
  const body = encode({ iat: now, exp: now + HOUR, ...claims });
  return `${head}.${body}.${sign(algorithm, secret, `${head}.${body}`)}`;
}

/** A second, short-lived token that permits joining one room. */
export function capability(room, claims = {}, options) {
  return token({ use: 'room', room, exp: seconds(60), ...claims }, options);
}

/** The time that is this number of seconds from now, in Unix seconds as in JWTs. */
export function seconds(fromNow) {
  return Math.floor(Date.now() / 1000) + fromNow;
}

function encode(value) {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function sign(algorithm, secret, text) {
  const hash = { HS256: 'sha256', HS384: 'sha384', HS512: 'sha512' }[algorithm];
  return hash ? createHmac(hash, secret).update(text).digest('base64url') : '';
}
