package strategy

import "github.com/mediabolt/mediabolt/bench/strategy/sqlindex"

// sqlite keeps tables in a SQLite database, a transaction for every operation.
var sqlite = Strategy{Name: "sqlite", Open: sqlindex.Open}
