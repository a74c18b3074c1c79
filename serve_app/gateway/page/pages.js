/** Pages of `/v1/decisions`, newest first. */

import { getJson } from "./api.js";

const PAGE = 500; // the most that the endpoint gives at a time

/**
 * Up to `most` decisions, newest first; `onPage` hears how many there are so far.
 * Gives `{rows, more}`: `more` says that the endpoint has older ones. Raises `ApiError`.
 */
export async function recent({ most, since = null, signal, onPage = () => {} }) {
  const rows = [];
  let cursor = null;
  let more = true;
  while (more && rows.length < most) {
    const page = await getJson("v1/decisions", { limit: Math.min(PAGE, most - rows.length), since, cursor }, signal);
    rows.push(...page.data);
    cursor = page.next_cursor;
    more = page.has_more;
    onPage(rows.length);
  }
  return { rows, more };
}
