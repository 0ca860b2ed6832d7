package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/bedplate/bedplate/bench/internal/dataset"
)

// The workloads. Every one but the two fixed ones carries a bearer token.
const (
	fixed     = "fixed"     // GET of the bare server
	postfixed = "postfixed" // POST to the bare server, with the body of a create
	create    = "create"    // a message in a room the caller is a member of
	read      = "read"      // a message by id, under the membership rule
	readOpen  = "readopen"  // the same record without a rule (bedplate only)
	list      = "list"      // 50 published posts, highest score first
	batch     = "batch"     // batchRows messages in one transaction (bedplate only)
	update    = "update"    // the indexed score of a post the caller wrote
	mixed     = "mixed"     // half of the connections read, half create
)

var workloads = []string{fixed, postfixed, create, batch, read, readOpen, list, update, mixed}

// batchRows is how many records a batch creates.
const batchRows = 100

// sort tells reads from writes.
type sort int

const (
	reading sort = iota
	writing
)

// requests writes the requests of one workload.
type requests struct {
	workload string
	paths    paths
	targets  *dataset.Targets
	host     string
	rng      *rand.Rand
	body     []byte
}

// paths are the addresses of one server.
type paths struct {
	messages, messagesOpen, posts string // followed by /id
	newMessage                    string
	execute                       string
	page                          string
}

// apis holds the paths of each server by name.
var apis = map[string]paths{
	"bare": {newMessage: "/"},
	"bedplate": {
		messages:     "/api/records/v1/messages/",
		messagesOpen: "/api/records/v1/messages_open/",
		posts:        "/api/records/v1/posts/",
		newMessage:   "/api/records/v1/messages",
		execute:      "/api/transaction/v1/execute",
		page:         "/api/records/v1/posts?limit=50&order=-score&filter%5Bstatus%5D=published",
	},
	"pocketbase": {
		messages:   "/api/collections/messages/records/",
		posts:      "/api/collections/posts/records/",
		newMessage: "/api/collections/messages/records",
		page:       "/api/collections/posts/records?perPage=50&skipTotal=1&sort=-score&filter=status%3D%27published%27",
	},
}

func newRequests(p plan) (*requests, error) {
	paths, ok := apis[p.api]
	if !ok {
		return nil, fmt.Errorf("-api: unknown server %q", p.api)
	}
	if p.targets == nil && p.workload != fixed && p.workload != postfixed {
		return nil, errTargets
	}
	return &requests{
		workload: p.workload,
		paths:    paths,
		targets:  p.targets,
		host:     p.addr.String(),
		rng:      rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}, nil
}

// sortOf tells what the connection with this index does.
func (r *requests) sortOf(conn int) sort {
	switch r.workload {
	case create, batch, update, postfixed:
		return writing
	case mixed:
		return sort(conn % 2)
	}
	return reading
}

// append adds the next request of this sort to dst.
func (r *requests) append(dst []byte, s sort) []byte {
	workload := r.workload
	if workload == mixed {
		if workload = read; s == writing {
			workload = create
		}
	}
	switch workload {
	case fixed:
		return r.appendGet(dst, "/", "", "")
	case postfixed:
		return r.appendBody(dst, "POST ", "/", "", "", appendMessage(r.body[:0],
			"AZq3bq2Xf0yXo0kq5o8kMA==", "AZq3bq2Xf0yXo0kq5o8kMQ=="))
	case create:
		u := r.rng.IntN(len(r.targets.Users))
		rooms := r.targets.Members[u]
		user, room := r.targets.Users[u], r.targets.Rooms[rooms[r.rng.IntN(len(rooms))]]
		return r.appendBody(dst, "POST ", r.paths.newMessage, "", user.Token,
			appendMessage(r.body[:0], room, user.ID))
	case batch:
		u := r.rng.IntN(len(r.targets.Users))
		user, rooms := r.targets.Users[u], r.targets.Members[u]
		body := append(r.body[:0], `{"operations":[`...)
		for i := range batchRows {
			if i > 0 {
				body = append(body, ',')
			}
			body = append(body, `{"Create":{"api_name":"messages","value":`...)
			body = appendMessage(body, r.targets.Rooms[rooms[r.rng.IntN(len(rooms))]], user.ID)
			body = append(body, "}}"...)
		}
		return r.appendBody(dst, "POST ", r.paths.execute, "", user.Token, append(body, `],"transaction":true}`...))
	case list:
		return r.appendGet(dst, r.paths.page, "", r.targets.Users[r.rng.IntN(len(r.targets.Users))].Token)
	case update:
		ref := r.targets.Posts[r.rng.IntN(len(r.targets.Posts))]
		body := append(r.body[:0], `{"score":`...)
		body = strconv.AppendInt(body, r.rng.Int64N(1000), 10)
		body = append(body, '}')
		return r.appendBody(dst, "PATCH ", r.paths.posts, ref.ID, r.targets.Users[ref.User].Token, body)
	default: // read, readOpen
		path := r.paths.messages
		if workload == readOpen {
			path = r.paths.messagesOpen
		}
		ref := r.targets.Messages[r.rng.IntN(len(r.targets.Messages))]
		return r.appendGet(dst, path, ref.ID, r.targets.Users[ref.User].Token)
	}
}

// appendMessage adds the JSON of a new message.
func appendMessage(dst []byte, room, author string) []byte {
	dst = append(dst, `{"room":"`...)
	dst = append(dst, room...)
	dst = append(dst, `","author":"`...)
	dst = append(dst, author...)
	return append(dst, `","body":"the harbor lantern turns its copper light over the river and the morning letter waits in the window"}`...)
}

func (r *requests) appendGet(dst []byte, path, id, token string) []byte {
	dst = r.appendHead(dst, "GET ", path, id, token)
	return append(dst, "\r\n"...)
}

func (r *requests) appendBody(dst []byte, method, path, id, token string, body []byte) []byte {
	r.body = body // keep what append may have grown
	dst = r.appendHead(dst, method, path, id, token)
	dst = append(dst, "Content-Type: application/json\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, body...)
}

func (r *requests) appendHead(dst []byte, method, path, id, token string) []byte {
	dst = append(dst, method...)
	dst = append(dst, path...)
	dst = append(dst, id...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.host...)
	dst = append(dst, "\r\n"...)
	if token != "" {
		dst = append(dst, "Authorization: Bearer "...)
		dst = append(dst, token...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}
