package acmetest

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// A nameServer has the address 127.0.0.1 for every name, none of IPv6, since Pebble takes the first,
// and the TXT records that it is given.
type nameServer struct {
	addr string

	mu  sync.Mutex
	txt map[string][]string // by name with a final dot
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	l := listen(t)
	s := &nameServer{addr: l.Addr().String(), txt: map[string][]string{}}
	server := &dns.Server{Listener: l, Handler: dns.HandlerFunc(s.answer)}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		_ = server.ShutdownContext(context.Background())
		<-done
	})
	return s
}

func (s *nameServer) answer(w dns.ResponseWriter, question *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(question)
	for _, q := range question.Question {
		head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
		switch q.Qtype {
		case dns.TypeA:
			answer.Answer = append(answer.Answer, &dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)})
		case dns.TypeTXT:
			s.mu.Lock()
			for _, value := range s.txt[strings.ToLower(q.Name)] {
				answer.Answer = append(answer.Answer, &dns.TXT{Hdr: head, Txt: []string{value}})
			}
			s.mu.Unlock()
		}
	}
	_ = w.WriteMsg(answer)
}

func (s *nameServer) addTXT(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txt[strings.ToLower(name)] = append(s.txt[strings.ToLower(name)], value)
}

func (s *nameServer) removeTXT(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := s.txt[strings.ToLower(name)]
	s.txt[strings.ToLower(name)] = slices.DeleteFunc(values, func(v string) bool { return v == value })
}

// records is how many TXT records there are.
func (s *nameServer) records() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, values := range s.txt {
		n += len(values)
	}
	return n
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
