// Command ours is Bedplate under test: record APIs over the benchmark's
// tables, with a stub where sign-in will be.
//
//	ours -data DIR -seed -targets targets.json
//	ours -data DIR -listen 127.0.0.1:8090 -sync full
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	_ "net/http/pprof" // on its own listener, and only with -pprof
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal("ours: ", err)
	}
}

func run(ctx context.Context) error {
	var (
		data     = flag.String("data", "data", "directory of the database")
		listen   = flag.String("listen", "127.0.0.1:8090", "address to listen on")
		sync     = flag.String("sync", "full", "durability: full or normal")
		maxBatch = flag.Int("maxbatch", 0, "most writes in one commit; 1: no group commit; 0: the default")
		realtime = flag.Bool("realtime", false, "open messages to subscriptions")
		extras   = flag.Bool("extras", false, "give posts, but not messages, validation and hooks")
		hooked   = flag.Bool("hooked", false, "give messages validation and hooks")
		profile  = flag.String("pprof", "", "address to serve profiles on")
		seeding  = flag.Bool("seed", false, "create the tables and rows, then exit")
		targets  = flag.String("targets", "targets.json", "with -seed: file to write the ids and tokens to")
	)
	flag.Parse()

	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // as the reference server does
	}
	cfg := bedplate.Config{
		Path:    filepath.Join(*data, "data.db"),
		SQLite:  sqlite.Options{MaxBatch: *maxBatch},
		Records: apis,
		Caller:  caller,
	}
	if *realtime {
		cfg.Records = subscribable(apis)
	}
	cfg.Records = extended(cfg.Records, *extras, *hooked)
	switch *sync {
	case "full":
	case "normal":
		cfg.SQLite.Synchronous = sqlite.Normal
	default:
		return fmt.Errorf("-sync: %q is neither full nor normal", *sync)
	}
	if *seeding {
		return seed(ctx, cfg, *targets)
	}
	b, err := bedplate.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer b.Close()
	tokens, err := loadTokens(ctx, b.DB)
	if err != nil {
		return err
	}
	if *profile != "" {
		l, err := net.Listen("tcp", *profile)
		if err != nil {
			return err
		}
		go func() { _ = http.Serve(l, http.DefaultServeMux) }()
	}
	return b.Serve(ctx, &http.Server{Addr: *listen, Handler: tokens.middleware(b.Handler())})
}

// member: the caller is a member of the room. Outside the parentheses stands
// where the room is taken from.
const member = `EXISTS(SELECT 1 FROM room_members WHERE user = _USER_.id AND room = %s)`

var apis = []records.API{
	{
		Name: "messages", Table: "messages",
		Authenticated: records.Create | records.Read,
		CreateRule:    fmt.Sprintf(member, "_REQ_.room"),
		ReadRule:      fmt.Sprintf(member, "_ROW_.room"),
	},
	{
		Name: "messages_open", Table: "messages",
		Authenticated: records.Read,
	},
	{
		Name: "posts", Table: "posts",
		Authenticated: records.Create | records.Read | records.Update,
		UpdateRule:    `_ROW_.author = _USER_.id`,
	},
}

// extended returns the APIs with validation and hooks: posts with extras,
// messages when they are hooked.
func extended(apis []records.API, extras, hooked bool) []records.API {
	apis = slices.Clone(apis)
	for i := range apis {
		if extras && apis[i].Name == "posts" || hooked && apis[i].Name == "messages" {
			apis[i].Validate = map[string]string{"body": "required,max=10000"}
			apis[i].Before = func(context.Context, *records.Change) error { return nil }
			apis[i].After = func(context.Context, *records.Change) {}
		}
	}
	return apis
}

// subscribable returns the APIs with subscriptions to messages.
func subscribable(apis []records.API) []records.API {
	apis = slices.Clone(apis)
	for i := range apis {
		apis[i].Subscriptions = apis[i].Table == "messages"
	}
	return apis
}
