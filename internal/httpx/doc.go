// Package httpx holds the small pieces of HTTP that handlers share and that
// know nothing of records: answers to cross-origin requests and bare refusals.
package httpx
