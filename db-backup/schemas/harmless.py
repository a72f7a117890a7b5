"""What an expression of a table's schema may call: functions that see nothing but their arguments.

Functions that read a file, a dictionary, another table, a setting, an address, the user or the
server (`file`, `dictGet`, `joinGet`, `getSetting`, `hostName`, …) are functions like any others to
the server. So this is a list of what is allowed; what is not in it is shown to a person. It has the
ones that schemas have, not all that exist.
"""

import re

_CONVERSIONS = re.compile(
    r"to(U?Int(8|16|32|64|128|256)|B?Float(16|32|64)|Decimal(32|64|128|256)|Date(32)?|Time(64)?"
    r"|DateTime(32|64)?|UUID|IPv[46])(OrNull|OrZero|OrDefault)?"
    r"|to(Bool|String|FixedString|StringCutToZero|LowCardinality|Nullable|JSONString|DecimalString)"
    r"|toInterval(Nanosecond|Microsecond|Millisecond|Second|Minute|Hour|Day|Week|Month|Quarter|Year)"
    r"|parseDateTime(32|64)?(BestEffort(US)?|InJodaSyntax)?(OrNull|OrZero)?"
    r"|reinterpretAs(U?Int(8|16|32|64|128|256)|Float(32|64)|Date|DateTime|String|FixedString|UUID)"
    r"|(from|to)UnixTimestamp(64(Second|Milli|Micro|Nano))?"
)
_TIMES = re.compile(
    r"toStartOf(Nanosecond|Microsecond|Millisecond|Second|Minute|FiveMinutes?|TenMinutes"
    r"|FifteenMinutes|Hour|Day|Week|Month|Quarter|Year|ISOYear|Interval)"
    r"|toRelative(Second|Minute|Hour|Day|Week|Month|Quarter|Year)Num"
    r"|(add|subtract)(Nanosecond|Microsecond|Millisecond|Second|Minute|Hour|Day|Week|Month|Quarter"
    r"|Year)s"
)
_FUNCTIONS_NAMES = """
CAST _CAST accurateCast accurateCastOrNull accurateCastOrDefault reinterpret plus minus multiply
divide intDiv intDivOrZero modulo moduloOrZero positiveModulo negate abs gcd lcm min2 max2
greatest least clamp equals notEquals less greater lessOrEquals greaterOrEquals isDistinctFrom
isNotDistinctFrom and or not xor if multiIf caseWithExpression ifNull nullIf coalesce isNull
isNotNull assumeNotNull isZeroOrNull firstNonDefault transform ignore identity materialize floor
ceil ceiling round trunc truncate roundBankers roundDown roundToExp2 roundDuration roundAge sqrt
cbrt exp exp2 exp10 log log2 log10 log1p ln pow power sin cos tan asin acos atan atan2 sign pi e
isNaN isFinite isInfinite ifNotFinite bitAnd bitOr bitXor bitNot bitShiftLeft bitShiftRight
bitTest bitTestAny bitTestAll bitCount bitSlice byteSwap now now64 today yesterday UTCTimestamp
toYear toQuarter toMonth toDayOfYear toDayOfMonth toDayOfWeek toHour toMinute toSecond
toMillisecond toMonday toISOWeek toISOYear toWeek toYearWeek toYYYYMM toYYYYMMDD
toYYYYMMDDhhmmss toLastDayOfMonth toLastDayOfWeek toTimezone toTimeZone dateDiff date_diff
dateTrunc date_trunc dateName monthName age timeSlot formatDateTime makeDate makeDate32
makeDateTime makeDateTime64 toUTCTimestamp fromUTCTimestamp length lengthUTF8 char_length empty
notEmpty lower upper lowerUTF8 upperUTF8 lcase ucase reverse reverseUTF8 concat
concatWithSeparator concat_ws substring substr mid substringUTF8 substringIndex left right
leftUTF8 rightUTF8 leftPad rightPad lpad rpad trimBoth trimLeft trimRight trim ltrim rtrim
startsWith endsWith position positionUTF8 positionCaseInsensitive positionCaseInsensitiveUTF8
locate repeat space ascii char hex unhex bin unbin base58Encode base58Decode base64Encode
base64Decode tryBase64Decode base64URLEncode base64URLDecode isValidUTF8 toValidUTF8 initcap
appendTrailingCharIfAbsent normalizeUTF8NFC normalizeUTF8NFKC like notLike ilike notILike match
extract extractAll extractGroups replace replaceOne replaceAll replaceRegexpOne replaceRegexpAll
regexpExtract regexpQuoteMeta translate format countSubstrings countMatches multiMatchAny
multiSearchAny hasToken hasTokenCaseInsensitive hasSubsequence splitByChar splitByString
splitByRegexp splitByWhitespace splitByNonAlpha alphaTokens tokens ngrams arrayStringConcat
array arrayConcat arrayElement has hasAll hasAny indexOf countEqual range arrayMap arrayFilter
arrayExists arrayAll arrayFirst arrayLast arrayFirstIndex arrayCount arraySum arrayAvg arrayMin
arrayMax arrayProduct arraySort arrayReverseSort arrayReverse arrayDistinct arrayUniq
arrayCompact arrayFlatten arraySlice arrayPushBack arrayPushFront arrayPopBack arrayPopFront
arrayResize arrayZip arrayIntersect arrayEnumerate arrayWithConstant arrayReduce arrayDifference
arrayCumSum emptyArrayString emptyArrayUInt8 map mapFromArrays mapKeys mapValues mapContains
mapContainsKey mapAdd mapSubtract mapFilter mapApply mapSort mapUpdate tuple tupleElement
untuple namedTuple tupleConcat JSONHas JSONLength JSONType JSONExtract JSONExtractString
JSONExtractInt JSONExtractUInt JSONExtractFloat JSONExtractBool JSONExtractRaw
JSONExtractArrayRaw JSONExtractKeys JSONExtractKeysAndValues JSONExtractKeysAndValuesRaw
isValidJSON JSON_VALUE JSON_QUERY JSON_EXISTS simpleJSONHas simpleJSONExtractString
simpleJSONExtractInt simpleJSONExtractUInt simpleJSONExtractFloat simpleJSONExtractBool
simpleJSONExtractRaw visitParamHas visitParamExtractString visitParamExtractInt
visitParamExtractUInt visitParamExtractFloat visitParamExtractBool visitParamExtractRaw
cityHash64 farmHash64 farmFingerprint64 sipHash64 sipHash128 xxHash32 xxHash64 xxh3 metroHash64
murmurHash2_32 murmurHash2_64 murmurHash3_32 murmurHash3_64 murmurHash3_128 intHash32 intHash64
halfMD5 MD5 SHA1 SHA224 SHA256 SHA512 javaHash CRC32 CRC64 URLHash jumpConsistentHash protocol
domain domainWithoutWWW domainRFC topLevelDomain firstSignificantSubdomain
cutToFirstSignificantSubdomain port path pathFull queryString fragment netloc cutWWW
cutQueryString cutFragment cutQueryStringAndFragment extractURLParameter extractURLParameters
cutURLParameter decodeURLComponent encodeURLComponent IPv4NumToString IPv4StringToNum
IPv4StringToNumOrDefault IPv4StringToNumOrNull IPv6NumToString IPv6StringToNum
IPv6StringToNumOrDefault IPv4ToIPv6 cutIPv6 isIPv4String isIPv6String isIPAddressInRange
IPv4CIDRToRange IPv6CIDRToRange UUIDStringToNum UUIDNumToString generateUUIDv4 generateUUIDv7
rand rand32 rand64 randCanonical dateTimeToSnowflakeID dateTime64ToSnowflakeID
snowflakeIDToDateTime generateSnowflakeID greatCircleDistance geoDistance geoToH3 geohashEncode
geohashDecode pointInPolygon variantElement variantType dynamicElement dynamicType
defaultValueOfTypeName defaultValueOfArgumentType toTypeName
"""
FUNCTIONS = frozenset(_FUNCTIONS_NAMES.split())
_AGGREGATES_NAMES = """
count sum sumWithOverflow sumKahan avg avgWeighted min max any anyLast any_respect_nulls
anyLast_respect_nulls anyHeavy argMin argMax uniq uniqExact uniqCombined uniqCombined64
uniqHLL12 uniqUpTo groupArray groupArrayLast groupUniqArray groupArraySorted groupArrayInsertAt
groupBitAnd groupBitOr groupBitXor groupBitmap groupConcat quantile quantiles quantileExact
quantilesExact quantileTiming quantilesTiming quantileTDigest quantilesTDigest quantileBFloat16
quantilesBFloat16 quantileDeterministic quantilesDeterministic quantileDD quantilesDD median
medianExact medianTiming stddevPop stddevSamp varPop varSamp covarPop covarSamp corr skewPop
skewSamp kurtPop kurtSamp topK topKWeighted histogram entropy sumMap minMap maxMap sumCount
deltaSum deltaSumTimestamp boundingRatio first_value last_value simpleLinearRegression
"""
AGGREGATES = frozenset(_AGGREGATES_NAMES.split())
LONGEST = 200  # letters of a name with combinators; each of them costs a look at all letters
_COMBINATORS = re.compile(
    r"(If|Array|Map|SimpleState|State|Merge|MergeState|ForEach|Distinct|OrDefault|OrNull|ArgMin"
    r"|ArgMax)$"
)
# Names that the server knows in small letters and in capitals alike.
_IN_ANY_CASE_NAMES = """
abs and cast ceil ceiling char coalesce concat count sum min max avg any exp floor greatest hex
if ifnull isnull least left length ln locate log log10 log2 lower lcase ltrim mid mod not now
nullif or pi position pow power rand repeat replace reverse right round rtrim sign sqrt substr
substring today trim trunc truncate ucase unhex upper
"""
_IN_ANY_CASE = frozenset(_IN_ANY_CASE_NAMES.split())


def is_harmless(function: str) -> bool:
    """Tell whether a function of this name sees nothing but its arguments."""
    if function in FUNCTIONS or function.lower() in _IN_ANY_CASE or is_aggregate(function):
        return True
    return bool(_CONVERSIONS.fullmatch(function) or _TIMES.fullmatch(function))


def is_aggregate(function: str) -> bool:
    """Tell whether a function of this name is an aggregate one, with combinators or without."""
    if len(function) > LONGEST:
        return False
    while function not in AGGREGATES:
        shorter = _COMBINATORS.sub("", function)
        if shorter == function:
            return False
        function = shorter
    return True
