package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/records/s3files"
)

// The keys of S3 in the environment, which wins over the file.
const (
	accessKeyVariable = "BEDPLATE_S3_ACCESS_KEY_ID"
	secretKeyVariable = "BEDPLATE_S3_SECRET_ACCESS_KEY"
)

// files reads where the content of file columns is kept, and how much of it.
func (r *configReader) files(n ast.Node) {
	var count int64
	r.object(n, object{
		"max_size_bytes":    r.integer(&r.Files.MaxSize, 1, math.MaxInt64),
		"max_files":         r.integer(&count, 1, math.MaxInt32),
		"user_quota_bytes":  r.integer(&r.Files.UserQuota, 1, math.MaxInt64),
		"total_quota_bytes": r.integer(&r.Files.TotalQuota, 1, math.MaxInt64),
		"s3":                r.s3,
	})
	r.Files.MaxFiles = int(count)
}

// s3Place is in the library's errors about the section s3.
const s3Place = "files in S3"

func (r *configReader) s3(n ast.Node) {
	var c s3files.Config
	keys := map[string]ast.Node{} // by what the library's errors call them
	at := func(name string, read func(ast.Node)) func(ast.Node) {
		return func(n ast.Node) {
			keys[name] = n
			read(n)
		}
	}
	secret, secretFile := r.secret(&c.SecretAccessKey)
	if !r.object(n, object{
		"bucket":                 at("the bucket: ", r.text(&c.Bucket)),
		"prefix":                 at("the prefix: ", r.text(&c.Prefix)),
		"region":                 at("the region: ", r.text(&c.Region)),
		"endpoint":               at("the endpoint: ", r.text(&c.Endpoint)),
		"allow_plaintext":        r.flag(&c.AllowPlaintext),
		"path_style":             r.flag(&c.PathStyle),
		"access_key_id":          at("the access key id: ", r.text(&c.AccessKeyID)),
		"secret_access_key":      at("the secret access key: ", secret),
		"secret_access_key_file": at("the secret access key: ", secretFile),
	}) {
		return
	}
	r.S3 = &c
	r.places[s3Place] = lineOf(n)
	check := c
	override(&check.AccessKeyID, "", "later") // the keys may be in the environment of the server
	override(&check.SecretAccessKey, "", "later")
	_, err := s3files.New(check)
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		where := n
		for name, key := range keys {
			if strings.HasPrefix(strings.TrimPrefix(line, "configuring files in S3: "), name) {
				where = key
			}
		}
		r.mistake(where, "%s", line)
	}
}

// openFiles opens what keeps the content of file columns, a directory in the
// data directory unless there is a section s3. What it returns is done with by
// done.
func (conf *config) openFiles() (files *records.FilesConfig, done func(), err error) {
	files = &conf.Files
	if conf.S3 == nil {
		dir, err := records.OpenDir(filepath.Join(conf.DataDir, "uploads"))
		if err != nil {
			return nil, nil, err
		}
		files.Store = dir
		return files, func() { _ = dir.Close() }, nil
	}
	s3 := *conf.S3
	override(&s3.AccessKeyID, os.Getenv(accessKeyVariable), "")
	override(&s3.SecretAccessKey, os.Getenv(secretKeyVariable), "")
	if s3.AccessKeyID == "" || s3.SecretAccessKey == "" {
		return nil, nil, fmt.Errorf("%s: access_key_id and secret_access_key are needed, there or as %s and %s in the environment",
			s3Place, accessKeyVariable, secretKeyVariable)
	}
	store, err := s3files.New(s3)
	if err != nil {
		return nil, nil, err
	}
	files.Store = store
	return files, func() {}, nil
}
