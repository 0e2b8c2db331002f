"use strict";
const place = document.getElementById("redoc");
Redoc.init(place.dataset.document, {}, place);
