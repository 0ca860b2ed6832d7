// Package natslease has the leases of replicas in an object store of NATS JetStream. What describes
// an object there is one message, the last one of its subject, and such a message can be
// written on the condition that the last one is still a certain one
// (https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-20.md,
// https://docs.nats.io/nats-concepts/jetstream/headers). So the lease is in the description of an
// object that is empty otherwise. The store of objects itself puts them without conditions.
package natslease

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/benbjohnson/litestream"
	litestreamnats "github.com/benbjohnson/litestream/nats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// metadataKey is where the text of the lease is in the metadata of the object.
const metadataKey = "lease"

// New returns a leaser for a replica.
func New(replica *litestreamnats.ReplicaClient, owner string, ttl time.Duration) litestream.Leaser {
	name := path.Join(replica.Path, replicator.LeaseObject)
	s := &store{
		replica: replica, name: name,
		stream:  "OBJ_" + replica.BucketName,
		subject: fmt.Sprintf("$O.%s.M.%s", replica.BucketName, base64.URLEncoding.EncodeToString([]byte(name))),
	}
	return replicator.NewLeaser(litestreamnats.ReplicaClientType, s, owner, ttl)
}

type store struct {
	replica               *litestreamnats.ReplicaClient
	name, stream, subject string

	mu sync.Mutex
	js jetstream.JetStream // nil: has to be made
}

// connect connects as Litestream does, whose connection cannot be had.
func (s *store) connect() (jetstream.JetStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.js != nil {
		return s.js, nil
	}
	r := s.replica
	options := []nats.Option{
		nats.Timeout(r.Timeout), nats.MaxReconnects(-1), nats.ReconnectWait(r.ReconnectWait),
		nats.ReconnectBufSize(-1), // what cannot be sent now fails now
	}
	switch {
	case r.Creds != "":
		options = append(options, nats.UserCredentials(r.Creds))
	case r.Username != "" && r.Password != "":
		options = append(options, nats.UserInfo(r.Username, r.Password))
	case r.Token != "":
		options = append(options, nats.Token(r.Token))
	}
	if r.TLS {
		options = append(options, nats.Secure())
	}
	if r.ClientCert != "" && r.ClientKey != "" {
		options = append(options, nats.ClientCert(r.ClientCert, r.ClientKey))
	}
	if len(r.RootCAs) > 0 {
		options = append(options, nats.RootCAs(r.RootCAs...))
	}
	connection, err := nats.Connect(r.URL, options...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(connection)
	if err != nil {
		connection.Close()
		return nil, err
	}
	s.js = js
	return js, nil
}

func (s *store) Read(ctx context.Context) (text []byte, tag string, age time.Duration, err error) {
	js, err := s.connect()
	if err != nil {
		return nil, "", 0, err
	}
	stream, err := js.Stream(ctx, s.stream)
	if err != nil {
		return nil, "", 0, fmt.Errorf("bucket %q: %w", s.replica.BucketName, err)
	}
	message, err := stream.GetLastMsgForSubject(ctx, s.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, "", 0, fs.ErrNotExist
	}
	if err != nil {
		return nil, "", 0, err
	}
	tag = strconv.FormatUint(message.Sequence, 10)
	age = stream.CachedInfo().TimeStamp.Sub(message.Time)
	var object jetstream.ObjectInfo
	switch err := json.Unmarshal(message.Data, &object); {
	case err != nil || len(object.Metadata[metadataKey]) > replicator.MaxLease:
		return nil, tag, age, nil // which is no lease
	case object.Deleted:
		return nil, tag, 0, fs.ErrNotExist
	}
	return []byte(object.Metadata[metadataKey]), tag, age, nil
}

func (s *store) Write(ctx context.Context, text []byte, tag string) (newTag string, err error) {
	js, err := s.connect()
	if err != nil {
		return "", err
	}
	nothing := sha256.Sum256(nil)
	message := nats.NewMsg(s.subject)
	message.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject) // the old one is deleted
	message.Data, err = json.Marshal(jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: s.name, Metadata: map[string]string{metadataKey: string(text)}},
		Bucket:     s.replica.BucketName,
		NUID:       rand.Text(),
		Digest:     "SHA-256=" + base64.URLEncoding.EncodeToString(nothing[:]),
	})
	if err != nil {
		return "", err
	}
	ack, err := js.PublishMsg(ctx, message,
		jetstream.WithExpectStream(s.stream), jetstream.WithExpectLastSequencePerSubject(sequence(tag)))
	if isWrongSequence(err) {
		return "", litestream.ErrLeaseNotHeld
	}
	if err != nil {
		return "", err
	}
	return strconv.FormatUint(ack.Sequence, 10), nil
}

// sequence is the condition for a tag. 0 means that there is no message; what is not the tag of one
// never holds.
func sequence(tag string) uint64 {
	if tag == "" {
		return 0
	}
	n, err := strconv.ParseUint(tag, 10, 64)
	if err != nil || n == 0 {
		return math.MaxUint64
	}
	return n
}

// isWrongSequence reports whether the server says that the condition does not hold. It has two codes
// for that, and the second is that of servers which do not tell what the sequence is.
func isWrongSequence(err error) bool {
	var refused jetstream.JetStreamError
	if !errors.As(err, &refused) || refused.APIError() == nil {
		return false
	}
	code := refused.APIError().ErrorCode
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == 10164
}
