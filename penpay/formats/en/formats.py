"""How staff pages write times: to the second, in UTC, sortable. Found through `FORMAT_MODULE_PATH`."""

DATETIME_FORMAT = "Y-m-d H:i:s"
DATE_FORMAT = "Y-m-d"
