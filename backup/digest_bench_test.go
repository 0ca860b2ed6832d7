package backup
import ("testing";"context";"database/sql";"path/filepath";_ "github.com/bedplate/bedplate/sqlite")
func BenchmarkDigest(b *testing.B){
 for _, q := range []struct{name, sql string; bytes int64}{
  {"records","CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INTEGER, c REAL, d BLOB); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200000) INSERT INTO t SELECT i, 'some text of a middling length '||i||hex(randomblob(40)), i*7, i/3.0, randomblob(16) FROM n",0},
  {"small","CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500000) INSERT INTO t SELECT i, i*7 FROM n",0},
  {"blobs","CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1000) INSERT INTO t SELECT i, randomblob(100000) FROM n",0},
 }{ b.Run(q.name, func(b *testing.B){
  db,_ := sql.Open("bedplate", filepath.Join(b.TempDir(),"x.db")); defer db.Close()
  if _,err:=db.Exec(q.sql);err!=nil{b.Fatal(err)}
  var n int64; db.QueryRow("select page_count*page_size from pragma_page_count, pragma_page_size").Scan(&n)
  c,_ := db.Conn(context.Background()); defer c.Close()
  ctx, cancel := context.WithCancel(context.Background()); defer cancel()
  b.SetBytes(n)
  for b.Loop(){ if _,err:=digestOf(ctx,c);err!=nil{b.Fatal(err)}}
 })}
}
