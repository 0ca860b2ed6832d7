package main

import (
	"fmt"
	"strconv"
)

// peer is how one server is spoken to.
type peer struct {
	// writing returns the path that creates a message which subscribers,
	// under the rule or not, are told about.
	writing func(rule bool) string

	// stream returns the path of an event stream.
	stream func(rule bool) string

	// topic is what an open stream subscribes to by a request of its own.
	// nil: a stream has said it all with its path.
	topic func(rule bool) string
}

var peers = map[string]peer{
	"bedplate": {
		writing: func(bool) string { return "/api/records/v1/messages" },
		stream: func(rule bool) string {
			if rule {
				return "/api/records/v1/messages/subscribe/*"
			}
			return "/api/records/v1/messages_open/subscribe/*"
		},
	},
	"pocketbase": {
		writing: func(rule bool) string { return "/api/collections/" + collection(rule) + "/records" },
		stream:  func(bool) string { return subscribePath },
		topic:   func(rule bool) string { return collection(rule) + "/*" },
	},
}

// subscribePath is where PocketBase opens streams with GET and fills them with
// POST.
const subscribePath = "/api/realtime"

func collection(rule bool) string {
	if rule {
		return "messages"
	}
	return "messages_open"
}

// appendStream adds the request that opens an event stream.
func appendStream(dst []byte, host, path, token string) []byte {
	return fmt.Appendf(dst, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n",
		path, host, token)
}

// appendPost adds a request with a JSON body.
func appendPost(dst []byte, host, path, token string, body []byte) []byte {
	dst = fmt.Appendf(dst, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, host, token, len(body))
	return append(dst, body...)
}

// mark stands before the number of an event, in the text of the message.
const mark = "event number "

// numberLen is the length of the number.
const numberLen = 8

// appendMessage adds the JSON of the message that is event number n.
func appendMessage(dst []byte, room, author string, n int) []byte {
	return fmt.Appendf(dst, `{"room":"%s","author":"%s","body":"%s%0*d turns its copper light over the river and the morning letter waits in the window"}`,
		room, author, mark, numberLen, n)
}

// parseNumber reads the number at the beginning of text.
func parseNumber(text []byte) (int, error) {
	if len(text) < numberLen {
		return 0, fmt.Errorf("no number in %q", text)
	}
	return strconv.Atoi(string(text[:numberLen]))
}
